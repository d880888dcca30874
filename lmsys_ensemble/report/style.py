"""The page's style: light and dark by the reader's setting, system fonts, nothing from elsewhere."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f5f6f8; --ink: #1c2026; --soft: #59616d; --line: #d9dde3;
  --chosen: #1f5fbf; --equal: #b4561a; --plain: #5b6471; --grid: #e6e9ee;
  --shade: #9aa3af; --alert: #fff4d6; --alert-line: #d9a514;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --panel: #1d2127; --ink: #e7eaee; --soft: #a3acb8; --line: #353c45;
    --chosen: #7fb0ff; --equal: #f0a066; --plain: #aab3bf; --grid: #2a3038;
    --shade: #6d7784; --alert: #332b14; --alert-line: #a8852a;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main, header { max-width: 68rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.25rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 0 0 .6rem; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; overflow-wrap: anywhere; }
p { margin: .5rem 0; max-width: 46rem; }
.soft, figcaption, caption { color: var(--soft); }
section { padding: 1.7rem 0 1.9rem; border-top: 1px solid var(--line); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin: 1rem 0 1.5rem; font-size: .95rem; }
a { color: var(--chosen); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11.5rem, 1fr)); gap: .8rem; margin: 1.1rem 0; }
.tile { background: var(--panel); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem 1rem; }
.tile b { display: block; font-size: 1.65rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile span { display: block; color: var(--soft); font-size: .88rem; overflow-wrap: anywhere; }
.tile.chosen b { color: var(--chosen); }
.alert { background: var(--alert); border-left: 4px solid var(--alert-line); padding: .55rem .9rem; margin: .8rem 0; }
.pair { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 1rem 2.2rem; align-items: start; }
.pair > * { min-width: 0; }
.panels { display: flex; flex-wrap: wrap; gap: .6rem 1.6rem; }
figure { margin: .8rem 0; }
svg { display: block; max-width: 100%; height: auto; }
figcaption { font-size: .9rem; max-width: 46rem; margin-top: .4rem; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .tick { font-size: 11px; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .axis { font-size: 11.5px; fill: var(--soft); }
svg .heading { font-size: 13px; font-weight: 600; }
svg .grid { stroke: var(--grid); } svg .zero { stroke: var(--soft); }
svg .diagonal { stroke: var(--soft); stroke-dasharray: 4 4; }
svg .curve { fill: none; stroke: var(--tone); stroke-width: 1.2; opacity: .55; }
svg .interval { stroke: var(--tone); stroke-width: 2; } svg .dot { fill: var(--tone); }
svg .bar { fill: var(--soft); opacity: .45; }
.plain { --tone: var(--plain); } .equal { --tone: var(--equal); } .chosen { --tone: var(--chosen); }
svg g.chosen > .label { font-weight: 600; }
.equal rect.dot { fill: var(--paper); stroke: var(--tone); stroke-width: 1.6; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; font-size: .92rem; margin: .8rem 0 0; }
.legend svg { display: inline-block; width: 14px; height: 14px; vertical-align: -2px; margin-right: .4rem; }
.scroll { overflow-x: auto; margin: .9rem 0; scrollbar-width: thin; background:
  linear-gradient(to left, var(--paper) 40%, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--shade), transparent) right / 1.1rem 100% no-repeat scroll; }
.scroll tbody th { position: sticky; left: 0; background: var(--paper); }
.scroll:focus-visible { outline: 2px solid var(--chosen); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-size: .9rem; padding-bottom: .35rem; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
caption span { display: block; position: sticky; left: 0; max-width: min(46rem, calc(100vw - 2.2rem)); }
thead th { font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 400; min-width: 6.5rem; max-width: 17rem; overflow-wrap: anywhere; }
.numbers td, .numbers thead th + th { text-align: right; white-space: nowrap; }
.numbers thead th + th { white-space: normal; }
.words td:last-child, .words thead th:last-child { text-align: left; white-space: normal; min-width: 17rem; }
td:last-child, th:last-child { padding-right: 0; }
td small, th small { display: block; color: var(--soft); font-size: .82em; }
tr.chosen th, tr.chosen td { font-weight: 600; color: var(--chosen); }
tr.chosen td small, th small { font-weight: 400; }
.matrix td, .matrix thead th { padding: .35rem 1rem; }
td.share { background: color-mix(in srgb, var(--chosen) calc(var(--share) * 45%), transparent); }
.track { display: inline-block; width: 6rem; height: .6rem; background: var(--grid); border-radius: .3rem; }
.track i { display: block; height: 100%; background: var(--chosen); border-radius: .3rem; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--chosen); font-size: .92rem; }
article { border: 1px solid var(--line); border-radius: .6rem; padding: .2rem 1.1rem .9rem; margin: 1rem 0; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--panel); border-radius: .4rem;
  padding: .55rem .75rem; margin: .25rem 0; max-width: none; font-size: .92rem; }
h4 { margin: .8rem 0 .2rem; font-size: .9rem; color: var(--soft); font-weight: 600; }
footer { color: var(--soft); font-size: .88rem; padding-bottom: 2.5rem; }
@media (max-width: 52rem) {
  .pair { grid-template-columns: minmax(0, 1fr); }
  header { padding-top: 1.4rem; } h1 { font-size: 1.5rem; }
  main, header { padding-left: 1rem; padding-right: 1rem; }
}
@media (max-width: 32rem) {
  .tiles { grid-template-columns: 1fr 1fr; gap: .6rem; } .tile { padding: .6rem .75rem; }
  .tile b { font-size: 1.35rem; }
  table { font-size: .84rem; } th, td { padding-right: .55rem; }
  tbody th { min-width: 4.6rem; max-width: 8.5rem; } .track { width: 3rem; }
  .matrix td, .matrix thead th { padding: .35rem .5rem; }
  figure:not(.panels) svg :is(.label, .tick, .axis) { font-size: 13px; }
}
@media print { nav { display: none; } section { break-inside: avoid-page; } }
"""
