#include "device/cuda/hopper/weights/layout.h"

#include <algorithm>

#include "device/carver.h"
#include "device/cuda/hopper/args.h"
#include "device/cuda/hopper/weights/format.h"
#include "program/uses.h"

namespace steelyard::cuda {

bool has_repacked_layout(DType type, std::uint32_t, std::uint32_t cols) {
  const int t = static_cast<int>(type);
  return hopper::is_repacked_type(t) && cols != 0 &&
         cols % (hopper::is_super(t) ? hopper::kUnitCols : hopper::kChunkCols) == 0;
}

std::uint64_t repacked_bytes(DType type, std::uint32_t rows, std::uint32_t cols) {
  const std::uint64_t groups = (rows + hopper::kGroupRows - 1) / hopper::kGroupRows;
  return (groups * hopper::group_bytes(static_cast<int>(type), cols) + 255) / 256 * 256;
}

namespace {

// Attention's partial results, the most over layers: floats [rows][heads][workers][4 + head_dim].
std::uint64_t partial_bytes(const Program& program, const StepLimits& limits) {
  std::uint64_t heads = 0;  // floats of one worker's
  for (const Op& op : program.ops)
    if (const auto a = attends(op))
      heads = std::max(heads, std::uint64_t{a->n_heads} * (program.states[a->state].head_dim_v + 4));
  const std::uint64_t few = std::min(limits.rows, hopper::kGemvRows),
                      many = std::min(limits.rows, hopper::kSplitRows);
  return std::max(few * hopper::kWorkersFewRows, many * hopper::kWorkersManyRows) * heads * sizeof(float);
}

}  // namespace

HopperScratch lay_out_scratch(const Program& program, const StepLimits& limits, Mode mode) {
  if (mode == Mode::exact) return {};
  std::uint64_t units = 0;  // of the widest matrix
  for (const WeightSpec& w : program.weights)
    units = std::max(units, std::uint64_t{hopper::units_of(w.cols)});
  const std::uint64_t rows = std::max(limits.rows, limits.outputs),
                      tiles = (rows + hopper::kTileRows - 1) / hopper::kTileRows;
  Carver carve(256);
  HopperScratch s;
  s.branch = carve.take(std::uint64_t{limits.rows} * program.n_embd * sizeof(float));
  s.partials = carve.take(partial_bytes(program, limits));
  s.input = carve.take(tiles * hopper::kTileRows * units * hopper::kUnitCols * 2);
  // A tile's room is that of two inputs of 8 rows, several times over.
  s.passed = s.input + hopper::kGemvInputBytes(units, hopper::kGemvRows);
  s.step = carve.end();
  if (mode == Mode::fast) carve.take(step_memory(program).bytes);  // invariant mode has no step kernel
  s.bytes = carve.end();
  return s;
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
                        [](const ExpertsOp&) { return 0; },  // the step kernel can't
                        [](const HeadOp&) { return 1; },
                        [](const SampleOp&) { return 1; },
                        [](const ReceiveOp&) { return 1; },
                        [](const SendOp&) { return 1; },
                        [](const SumOp&) { return 1; },
                        [](const GatherOp&) { return 1; },
                    },
                    op.body);
}

StepMemory step_memory(const Program& p) {
  using namespace hopper;
  std::uint64_t ops = 0, words = 0, width = p.n_embd;
  for (const BufferSpec& buffer : p.buffers)
    if (buffer.rows == RowSet::all) width = std::max(width, std::uint64_t{buffer.width});
  for (const Op& op : p.ops) {
    ops += step_ops_of(op);
    if (const auto a = attends(op))
      words = std::max(words, std::uint64_t{a->n_heads} * (p.states[a->state].head_dim_v + 1));
  }
  Carver carve(256);
  StepMemory m;
  m.ops = carve.take(ops * sizeof(StepOp));
  m.slot_bytes = (width * sizeof(std::uint64_t) + 255) / 256 * 256;
  m.words = carve.take((p.buffers.size() + 1) * m.slot_bytes);
  m.partials = carve.take(kStepParts * words * sizeof(std::uint64_t));
  m.bytes = carve.end();
  return m;
}

}  // namespace steelyard::cuda
