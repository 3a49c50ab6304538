// A plan as a table for people, beside what was really taken when that is known.
#include <fmt/format.h>

#include "base/units.h"
#include "plan/plan.h"

namespace steelyard {
namespace {

// Sums are rounded up, as in the verdict: the two name the same figure.
std::string needed(std::uint64_t bytes) { return size_text(bytes, Rounding::up); }

}  // namespace

std::string to_text(const MemoryPlan& plan, const std::vector<std::vector<std::uint64_t>>* actual) {
  std::string text;
  for (std::size_t d = 0; d < plan.devices.size(); ++d) {
    const DevicePlan& device = plan.devices[d];
    text +=
        fmt::format("{:<16}{:>15}{}\n", device.device, "plan", actual ? fmt::format("{:>15}", "actual") : "");
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < device.lines.size(); ++i) {
      const PlanLine& line = device.lines[i];
      text += fmt::format("  {:<14}{:>15}", purpose_name(line.purpose), needed(line.bytes));
      if (actual) text += fmt::format("{:>15}", needed((*actual)[d][i])), sum += (*actual)[d][i];
      text += "  " + line.note + "\n";
    }
    text += fmt::format("  {:<14}{:>15}{}\n", "total", needed(device.total()),
                        actual ? fmt::format("{:>15}", needed(sum)) : "");
  }
  if (!plan.layers.empty()) text += fmt::format("repeating layers + output layer: {}\n", plan.layers);
  for (const auto& slow : plan.slow_types)
    text += fmt::format("  slow type     {}: right, but without a fast kernel\n", slow);
  return text;
}

}  // namespace steelyard
