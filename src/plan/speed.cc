#include "plan/speed.h"

#include <algorithm>
#include <array>
#include <limits>
#include <variant>

#include "program/share.h"

namespace steelyard {
namespace {

// How fast steps get through weights and state, by rows: of one row at a share of the nominal bandwidth; of
// more at as many bytes as an SM turns into operands in a cycle, or, where cycles are unknown, at a smaller
// share. From one H200, 8B and 32B in Q4_K_M, docs/benchmarks.md (one stream 514 and 149 tokens/s; 8B with 2,
// 4, 8, 16, 32, 64 streams 630, 1121, 2012, 2767, 4714, 7470), kLayerSeconds taken off; one H100, with two
// thirds of the bandwidth, does many streams as fast. Other GPUs than Hopper's have slower kernels so far:
// there it is what kernels as good would do.
struct Reached {
  std::uint32_t rows;
  double share, bytes_per_cycle;
};
constexpr std::array kGpuReads = {Reached{2, 0.43, 8.5}, Reached{4, 0.39, 7.7}, Reached{8, 0.34, 6.7},
                                  Reached{16, 0.24, 4.8}};
constexpr double kOneRowReads = 0.85;
// Of the nominal f16 rate, prompts: 44 to 47 % there.
constexpr double kGpuMultiplies = 0.45;
// A layer of a step, whatever it reads: waiting for the slowest block at each of its boundaries.
constexpr double kLayerSeconds = 27e-6;
// Experts on a GPU have general kernels only, which are far slower: of the nominal rates, one H200,
// qwen3-30b-a3b with 1 to 64 streams and in prompts (gpt-oss-20b in MXFP4 has two thirds of it).
constexpr double kGpuExperts = 0.06;
// CPU, docs/benchmarks.md: 77 to 93 % of the read rate; 33 to 60 % of the multipliers.
constexpr double kCpuReads = 0.8, kCpuMultiplies = 0.5;

Reached reached(std::uint32_t rows) {
  const auto above = std::ranges::find_if(kGpuReads, [&](const Reached& r) { return r.rows >= rows; });
  if (above == kGpuReads.end()) return kGpuReads.back();
  if (above == kGpuReads.begin()) return *above;
  const Reached below = *(above - 1);
  const double part = static_cast<double>(rows - below.rows) / (above->rows - below.rows);
  return {rows, below.share + part * (above->share - below.share),
          below.bytes_per_cycle + part * (above->bytes_per_cycle - below.bytes_per_cycle)};
}

double read_rate(const PaperDevice& device, std::uint32_t rows) {
  const double read = device.read_bytes_per_second;
  if (device.host) return kCpuReads * read;
  if (rows <= 1) return kOneRowReads * read;
  const Reached r = reached(rows);
  if (device.sm_cycles_per_second <= 0) return r.share * read;
  return std::min(kOneRowReads * read, r.bytes_per_cycle * device.sm_cycles_per_second);
}

double seconds(double amount, double rate) { return rate > 0 ? amount / rate : 0; }

// Sums over two ranks, measured on two H200s between kernels of 132 blocks (5120 values of one row: 1.5 µs
// more than inside one GPU with peer access, 5.5 through page-locked host memory; 2048: 0.8 and 4.5;
// 8192: 1.7 and 6.9): a start and a time for each value, which includes the links of that machine. Of more
// ranks none was measured: every further one is taken for one more push.
struct SumCost {
  double start, value;
  double link;       // bytes a second, where it was measured
  double crossings;  // of the link by each value
};
constexpr SumCost kPeerSum{0.5e-6, 0.16e-9, 396e9, 1}, kHostSum{3.65e-6, 0.38e-9, 55e9, 2};
// A value and its tag as one word; large sums and hops go by copies of floats.
constexpr double kWordBytes = 8, kFloatBytes = 4;
constexpr std::uint32_t kWordRows = 16;
// A word through the peer's memory: 0.67 µs; there and back through page-locked memory 1.9.
constexpr double kPeerHop = 0.67e-6, kHostHop = 1.0e-6;

double bytes_of(std::uint32_t rows, std::uint32_t width) {
  return static_cast<double>(rows) * width * (rows <= kWordRows ? kWordBytes : kFloatBytes);
}

}  // namespace

std::vector<double> unit_seconds(const Program& program, const PaperDevice& device, const StepShape& shape,
                                 bool ideal) {
  const std::uint32_t layers = layer_count(program);
  std::vector<double> units(layers + 2, 0.0);
  const double read = ideal ? device.read_bytes_per_second : read_rate(device, shape.rows);
  const double multiply = device.multiplies_per_second * (ideal         ? 1
                                                          : device.host ? kCpuMultiplies
                                                                        : kGpuMultiplies);
  for (const Op& op : program.ops) {
    const OpCost cost = op_cost(program, op, shape);
    const bool general = !ideal && !device.host && std::holds_alternative<ExpertsOp>(op.body);
    const double reads = general ? kGpuExperts * device.read_bytes_per_second : read;
    const double multiplies = general ? kGpuExperts * device.multiplies_per_second : multiply;
    units[unit_of(op, layers)] += std::max(seconds(cost.weight_bytes + cost.state_bytes, reads),
                                           seconds(cost.flops + cost.attention_flops, multiplies));
  }
  if (!ideal && !device.host && device.read_bytes_per_second > 0)
    for (std::uint32_t layer = 1; layer <= layers; ++layer)
      if (units[layer] > 0) units[layer] += kLayerSeconds;
  return units;
}

double hop_seconds(const DeviceLink& link, std::uint32_t rows, std::uint32_t width) {
  if (link.bytes_per_second <= 0) return std::numeric_limits<double>::infinity();
  const double crossings = link.peer ? 1 : 2;
  return (link.peer ? kPeerHop : kHostHop) + crossings * bytes_of(rows, width) / link.bytes_per_second;
}

double sum_seconds(const DeviceLink& link, std::uint32_t rows, std::uint32_t width, std::uint32_t ranks) {
  if (ranks < 2) return 0;
  if (link.bytes_per_second <= 0) return std::numeric_limits<double>::infinity();
  const SumCost& cost = link.peer ? kPeerSum : kHostSum;
  const double pushes = ranks - 1;  // every rank sends its part to every other
  if (rows > kWordRows)
    return cost.start + pushes * cost.crossings * bytes_of(rows, width) / link.bytes_per_second;
  const double slower = std::max(0.0, 1 / link.bytes_per_second - 1 / cost.link);
  return cost.start + pushes * rows * width * (cost.value + cost.crossings * kWordBytes * slower);
}

}  // namespace steelyard
