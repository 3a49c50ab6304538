#include "device/cuda/host/driver.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>

namespace steelyard::cuda {

std::string driver_library() {
  const char* path = std::getenv("STEELYARD_CUDA_DRIVER");
  return path && *path ? path : "libcuda.so.1";
}

bool load_driver(Driver& driver, std::string& why) {
  const std::string path = driver_library();
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    why = fmt::format("no NVIDIA driver here ({} can't be opened)", path);
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
