#include "device/cuda/driver.h"

#include <dlfcn.h>
#include <fmt/format.h>

namespace strata::cuda {

bool load_driver(Driver& driver, std::string& why) {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    why = "no NVIDIA driver here (libcuda.so.1 can't be opened)";
    return false;
  }
#define STRATA_CUDA_LOOKUP(name, symbol, parameters)                              \
  driver.name = reinterpret_cast<decltype(driver.name)>(dlsym(library, #symbol)); \
  if (!driver.name) {                                                             \
    why = fmt::format("the NVIDIA driver is too old: it lacks {}", #symbol);      \
    return false;                                                                 \
  }
  STRATA_CUDA_FUNCTIONS(STRATA_CUDA_LOOKUP)
#undef STRATA_CUDA_LOOKUP
  return true;
}

}  // namespace strata::cuda
