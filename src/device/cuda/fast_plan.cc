#include "base/error.h"
#include "device/cuda/fast.h"

namespace strata::cuda {

std::unique_ptr<FastPlan> make_fast_plan(const FastInput&, CompileServices&) { return nullptr; }

void enqueue_repack(Launcher&, DType type, std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t,
                    DevicePtr, DevicePtr) {
  throw_error(ErrorKind::internal, "{} has no repacked layout", dtype_info(type).name);
}

}  // namespace strata::cuda
