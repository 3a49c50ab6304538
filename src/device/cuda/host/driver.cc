#include "device/cuda/host/driver.h"

#include <dlfcn.h>
#include <fmt/format.h>

namespace steelyard::cuda {

bool load_driver(Driver& driver, std::string& why) {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    why = "no NVIDIA driver here (libcuda.so.1 can't be opened)";
    return false;
  }
#define STEELYARD_CUDA_LOOKUP(name, symbol, parameters)                           \
  driver.name = reinterpret_cast<decltype(driver.name)>(dlsym(library, #symbol)); \
  if (!driver.name) {                                                             \
    why = fmt::format("the NVIDIA driver is too old: it lacks {}", #symbol);      \
    return false;                                                                 \
  }
  STEELYARD_CUDA_FUNCTIONS(STEELYARD_CUDA_LOOKUP)
#undef STEELYARD_CUDA_LOOKUP
  return true;
}

}  // namespace steelyard::cuda
