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

// Fills row `device` of the table from the one before; no stretch may take longer than `most`.
std::vector<Cell> next_row(const SplitInput& in, std::size_t device, const std::vector<Cell>& before,
                           First first, double most) {
  std::vector<Cell> row(in.units + 1);
  const std::vector<double>& until = in.until[device];
  for (std::uint32_t begin = 0; begin < in.units; ++begin) {
    if (before[begin].sum == kInfinity) continue;
    const std::uint32_t reach = in.reach(device, begin);
    for (std::uint32_t end = begin + 1; end <= reach; ++end) {
      const double time = until[end] - until[begin];
      if (time > most * (1 + kEqual)) break;
      const Cell cell{before[begin].sum + time, std::max(before[begin].longest, time), begin};
      if (better(cell, row[end], first)) row[end] = cell;
    }
  }
  return row;
}

std::optional<Split> solve(const SplitInput& in, First first, double most) {
  std::vector<std::vector<Cell>> rows(1, std::vector<Cell>(in.units + 1));
  rows[0][0] = {0, 0, 0};
  for (std::size_t d = 0; d < in.until.size(); ++d) rows.push_back(next_row(in, d, rows.back(), first, most));
  const Cell& last = rows.back()[in.units];
  if (last.sum == kInfinity) return std::nullopt;
  Split split{.ends = std::vector<std::uint32_t>(in.until.size()), .sum = last.sum, .longest = last.longest};
  std::uint32_t end = in.units;
  for (std::size_t d = in.until.size(); d-- > 0; end = rows[d + 1][end].begin) split.ends[d] = end;
  return split;
}

}  // namespace

double Split::round(const SplitInput& in) const { return std::max(in.turns * longest, sum + in.between); }

std::optional<Split> best_split(const SplitInput& in) {
  std::optional<Split> best = solve(in, First::sum, kInfinity);
  if (!best || in.turns < 2) return best;
  const std::optional<Split> even = solve(in, First::longest, kInfinity);
  // Less for the longest stretch costs more in all: between the two ends lies the least of the larger of
  // both.
  double low = even->longest, high = best->longest;
  const auto consider = [&](double most) {
    std::optional<Split> split = solve(in, First::sum, most);
    if (split && clearly_less(split->round(in), best->round(in))) best = split;
    return split;
  };
  consider(low);
  for (int i = 0; i < 40 && high - low > kEqual * high; ++i) {
    const double middle = (low + high) / 2;
    const std::optional<Split> split = consider(middle);
    const bool sum_counts = !split || in.turns * split->longest < split->sum + in.between;
    (sum_counts ? low : high) = middle;
  }
  return best;
}

}  // namespace steelyard
