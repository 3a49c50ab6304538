#include "device/cuda/hopper/weights/layout.h"

#include <algorithm>

#include "device/cuda/hopper/args.h"
#include "device/cuda/hopper/weights/format.h"
#include "program/uses.h"

namespace steelyard::cuda {

bool fast_has_layout(DType type, std::uint32_t, std::uint32_t cols) {
  const int t = static_cast<int>(type);
  return fast::is_fast(t) && cols != 0 &&
         cols % (fast::is_super(t) ? fast::kUnitCols : fast::kChunkCols) == 0;
}

std::uint64_t repacked_bytes(DType type, std::uint32_t rows, std::uint32_t cols) {
  const std::uint64_t groups = (rows + fast::kGroupRows - 1) / fast::kGroupRows;
  return (groups * fast::group_bytes(static_cast<int>(type), cols) + 255) / 256 * 256;
}

std::uint64_t fast_branch_bytes(const Program& program, const StepLimits& limits) {
  return (std::uint64_t{limits.rows} * program.n_embd * sizeof(float) + 255) / 256 * 256;
}

std::uint64_t fast_partial_bytes(const Program& program, const StepLimits& limits) {
  std::uint64_t heads = 0;  // floats of one worker's partial results, most over layers
  for (const Op& op : program.ops)
    if (const auto a = attends(op))
      heads = std::max(heads, std::uint64_t{a->n_heads} * (program.states[a->state].head_dim_v + 4));
  const std::uint64_t few = std::min(limits.rows, fast::kFewRows),
                      many = std::min(limits.rows, fast::kSplitRows);
  const std::uint64_t workers = std::max(few * fast::kWorkersFewRows, many * fast::kWorkersManyRows);
  return (workers * heads * sizeof(float) + 255) / 256 * 256;
}

std::uint64_t fast_input_units(const Program& program) {
  std::uint64_t units = 0;
  for (const WeightSpec& w : program.weights) units = std::max(units, std::uint64_t{fast::units_of(w.cols)});
  return units;
}

std::uint64_t fast_step_offset(const Program& program, const StepLimits& limits) {
  const std::uint64_t tiles = (std::max(limits.rows, limits.outputs) + fast::kTileRows - 1) / fast::kTileRows;
  return fast_branch_bytes(program, limits) + fast_partial_bytes(program, limits) +
         tiles * fast::kTileRows * fast_input_units(program) * fast::kUnitCols * 2;
}

// The most operations of the step kernel that an op becomes: a norm of what a product adds is one more.
static std::uint64_t step_ops_of(const Op& op) {
  return std::visit(Overloaded{
                        [](const EmbedOp&) { return 1; },
                        [](const QkvOp&) { return 1; },
                        [](const RopeAppendOp&) { return 1; },
                        [](const AttentionOp&) { return 1; },
                        [](const ResidualLinearOp&) { return 2; },
                        [](const GateUpOp&) { return 1; },
                        [](const HeadOp&) { return 1; },
                        [](const SampleOp&) { return 1; },
                    },
                    op.body);
}

StepMemory step_memory(const Program& p) {
  using namespace fast;
  const auto align = [](std::uint64_t n) { return (n + 255) / 256 * 256; };
  std::uint64_t ops = 0, words = 0, width = p.n_embd;
  for (const BufferSpec& buffer : p.buffers)
    if (buffer.rows == RowSet::all) width = std::max(width, std::uint64_t{buffer.width});
  for (const Op& op : p.ops) {
    ops += step_ops_of(op);
    if (const auto a = attends(op))
      words = std::max(words, std::uint64_t{a->n_heads} * (p.states[a->state].head_dim_v + 1));
  }
  StepMemory m{};
  m.words = align(ops * sizeof(StepOp));
  m.slot_bytes = align(width * sizeof(std::uint64_t));
  m.partials = m.words + (p.buffers.size() + 1) * m.slot_bytes;
  m.bytes = m.partials + align(kStepParts * words * sizeof(std::uint64_t));
  return m;
}

std::uint64_t fast_scratch_bytes(const Program& program, const StepLimits& limits, Mode mode) {
  if (mode == Mode::exact) return 0;
  // Invariant mode has no step kernel.
  return fast_step_offset(program, limits) + (mode == Mode::fast ? step_memory(program).bytes : 0);
}

}  // namespace steelyard::cuda
