// A device guard for CUDA that does nothing. Builds of PyTorch without CUDA have none, and then even tensors that
// hold no numbers cannot be indexed on a pretended GPU.
#include <c10/core/impl/DeviceGuardImplInterface.h>
namespace {
static c10::impl::DeviceGuardImplRegistrar registered(
    c10::DeviceType::CUDA, new c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA>());
}
