#include "plan/split.h"

#include <algorithm>
#include <limits>

namespace steelyard {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kEqual = 1e-9;  // of a time: less is rounding

bool clearly_less(double a, double b) { return a < b - kEqual * std::max(a, b); }

enum class First : std::uint8_t { sum, longest };

// The best way to give the units before `end` to the first devices: one cell of the table.
struct Cell {
  double sum = kInfinity, longest = kInfinity;
  std::uint32_t begin = 0;  // of the last device's stretch
};

bool better(const Cell& a, const Cell& b, First first) {
  if (b.sum == kInfinity) return a.sum < kInfinity;
  const double a1 = first == First::sum ? a.sum : a.longest, b1 = first == First::sum ? b.sum : b.longest;
  const double a2 = first == First::sum ? a.longest : a.sum, b2 = first == First::sum ? b.longest : b.sum;
  if (clearly_less(a1, b1)) return true;
  return !clearly_less(b1, a1) && clearly_less(a2, b2);
}

// Solves one input under several bounds; what fits is asked once.
class Cutter {
 public:
  explicit Cutter(const SplitInput& in) : in_(in), reach_(in.until.size(), std::vector<int>(in.units, -1)) {}

  // The least sum, or the least longest stretch, where no stretch takes longer than `most`.
  std::optional<Split> solve(First first, double most) {
    std::vector<std::vector<Cell>> rows(1, std::vector<Cell>(in_.units + 1));
    rows[0][0] = {0, 0, 0};
    for (std::size_t d = 0; d < in_.until.size(); ++d) rows.push_back(next_row(d, rows.back(), first, most));
    const Cell& last = rows.back()[in_.units];
    if (last.sum == kInfinity) return std::nullopt;
    Split split{
        .ends = std::vector<std::uint32_t>(in_.until.size()), .sum = last.sum, .longest = last.longest};
    std::uint32_t end = in_.units;
    for (std::size_t d = in_.until.size(); d-- > 0; end = rows[d + 1][end].begin) split.ends[d] = end;
    return split;
  }

 private:
  // Row `device` of the table from the one before.
  std::vector<Cell> next_row(std::size_t device, const std::vector<Cell>& before, First first, double most) {
    std::vector<Cell> row(in_.units + 1);
    const std::vector<double>& until = in_.until[device];
    for (std::uint32_t begin = 0; begin < in_.units; ++begin) {
      if (before[begin].sum == kInfinity) continue;
      const std::uint32_t reach = reach_from(device, begin);
      for (std::uint32_t end = begin + 1; end <= reach; ++end) {
        const double time = until[end] - until[begin];
        if (time > most * (1 + kEqual)) break;
        const Cell cell{before[begin].sum + time, std::max(before[begin].longest, time), begin};
        if (better(cell, row[end], first)) row[end] = cell;
      }
    }
    return row;
  }

  std::uint32_t reach_from(std::size_t device, std::uint32_t begin) {
    int& known = reach_[device][begin];
    if (known < 0) known = static_cast<int>(in_.reach(device, begin));
    return static_cast<std::uint32_t>(known);
  }

  const SplitInput& in_;
  std::vector<std::vector<int>> reach_;  // -1: not asked yet
};

}  // namespace

double Split::round(const SplitInput& in) const { return std::max(in.turns * longest, sum + in.between); }

std::optional<Split> best_split(const SplitInput& in) {
  Cutter cutter(in);
  std::optional<Split> best = cutter.solve(First::sum, kInfinity);
  if (!best || in.turns < 2) return best;
  const double least_sum = best->sum;
  double low = cutter.solve(First::longest, kInfinity)->longest, high = best->longest;
  // Neither end's bound can be beaten: with as many batches as devices it is reached at once.
  const double bound = std::max(in.turns * low, least_sum + in.between);
  const auto consider = [&](double most) {
    std::optional<Split> split = cutter.solve(First::sum, most);
    if (split && clearly_less(split->round(in), best->round(in))) best = split;
    return split;
  };
  consider(low);
  // A shorter longest stretch costs more in all: between the ends lies the least of the larger of both.
  for (int i = 0; i < 40 && high - low > kEqual * high; ++i) {
    if (!clearly_less(bound, best->round(in)) || bound > in.known) break;
    const double middle = (low + high) / 2;
    const std::optional<Split> split = consider(middle);
    const bool sum_counts = !split || in.turns * split->longest < split->sum + in.between;
    (sum_counts ? low : high) = middle;
  }
  return best;
}

}  // namespace steelyard
