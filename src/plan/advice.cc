// What to change when a plan doesn't fit: the longest context, the smaller KV type, fewer sequences.
#include <algorithm>
#include <cmath>

#include "base/dtype.h"
#include "base/error.h"
#include "plan/plan.h"
#include "program/program.h"

namespace steelyard {
namespace {

constexpr std::uint32_t kLeastContext = 256;

std::uint64_t total_of(const PlanInput& in) { return plan_memory(in).devices[0].total(); }

// What is needed is rounded up and what is there down, so that the two never look alike.
std::string size_text(std::uint64_t bytes, double (*round)(double)) {
  const double mib = static_cast<double>(bytes) / (1024.0 * 1024.0);
  if (mib < 1024) return fmt::format("{:.1f} MiB", round(mib * 10) / 10);
  return fmt::format("{:.2f} GiB", round(mib / 1024 * 100) / 100);
}
std::string needed_text(std::uint64_t bytes) { return size_text(bytes, std::ceil); }
std::string available_text(std::uint64_t bytes) { return size_text(bytes, std::floor); }

// The longest context, in whole pages' hundreds, that fits; 0 when none does.
std::uint32_t fitting_context(PlanInput in, std::uint64_t free_bytes) {
  std::uint32_t low = 0, high = in.limits.context / kLeastContext;
  while (low < high) {
    const std::uint32_t middle = (low + high + 1) / 2;
    in.limits.context = middle * kLeastContext;
    if (total_of(in) <= free_bytes)
      low = middle;
    else
      high = middle - 1;
  }
  return low * kLeastContext;
}

// A program with its states in another type: what write_forward would give for it.
Program with_kv_type(const Program& program, DType type) {
  Program copy = program;
  for (auto& s : copy.states) s.type = type;
  return copy;
}

std::string changes(const PlanInput& in, std::uint64_t free_bytes) {
  std::vector<std::string> ways;
  if (const std::uint32_t context = fitting_context(in, free_bytes); context > 0)
    ways.push_back(fmt::format("--context {}", context));
  if (in.limits.slots > 1) {
    PlanInput fewer = in;
    while (fewer.limits.slots > 1 && total_of(fewer) > free_bytes) --fewer.limits.slots;
    if (total_of(fewer) <= free_bytes)
      ways.push_back(fmt::format("{} parallel sequence(s)", fewer.limits.slots));
  }
  if (in.kv_type != DType::Q8_0 && in.mode != Mode::exact) {
    const Program smaller = with_kv_type(*in.program, DType::Q8_0);
    PlanInput q8 = in;
    q8.program = &smaller;
    q8.kv_type = DType::Q8_0;
    if (total_of(q8) <= free_bytes) ways.push_back("--kv-type q8_0");
  }
  std::string text;
  for (std::size_t i = 0; i < ways.size(); ++i) text += (i ? " or " : "") + ways[i];
  return text;
}

}  // namespace

std::string why_not(const PlanInput& in, std::uint64_t free_bytes) {
  const MemoryPlan plan = plan_memory(in);
  const std::uint64_t total = plan.devices[0].total();
  if (total <= free_bytes) return {};
  // Both sides count the process, which is there already; people are told what is still to be taken.
  const std::uint64_t process = plan.devices[0].bytes(Purpose::process);
  const std::uint64_t available = free_bytes > process ? free_bytes - process : 0;
  const std::string ways = changes(in, free_bytes);
  if (!ways.empty())
    return fmt::format("the model needs {} of memory on {}, where {} is available; it would fit with {}",
                       needed_text(total - process), in.device, available_text(available), ways);
  PlanInput least = in;
  least.limits.slots = 1;
  least.limits.context = std::min(in.limits.context, kLeastContext);
  return fmt::format(
      "the model needs {} of memory on {}, where {} is available; even --context {} needs {}, so it takes a "
      "smaller model or quantisation",
      needed_text(total - process), in.device, available_text(available), least.limits.context,
      needed_text(total_of(least) - process));
}

std::string to_text(const MemoryPlan& plan, const std::vector<std::vector<std::uint64_t>>* actual) {
  const auto mib = [](std::uint64_t bytes) { return fmt::format("{:.2f} MiB", bytes / (1024.0 * 1024.0)); };
  std::string text;
  for (std::size_t d = 0; d < plan.devices.size(); ++d) {
    const DevicePlan& device = plan.devices[d];
    text +=
        fmt::format("{:<16}{:>15}{}\n", device.device, "plan", actual ? fmt::format("{:>15}", "actual") : "");
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < device.lines.size(); ++i) {
      const PlanLine& line = device.lines[i];
      text += fmt::format("  {:<14}{:>15}", purpose_name(line.purpose), mib(line.bytes));
      if (actual) text += fmt::format("{:>15}", mib((*actual)[d][i])), sum += (*actual)[d][i];
      text += "  " + line.note + "\n";
    }
    text += fmt::format("  {:<14}{:>15}{}\n", "total", mib(device.total()),
                        actual ? fmt::format("{:>15}", mib(sum)) : "");
  }
  for (const auto& slow : plan.slow_types)
    text += fmt::format("  slow type     {}: right, but without a fast kernel\n", slow);
  return text;
}

}  // namespace steelyard
