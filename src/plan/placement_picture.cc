// A memory map of each device of a placement, as an SVG document: bars to one scale, the purposes in colours,
// what is free left white, what is lacking hatched red.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "base/svg.h"
#include "base/units.h"
#include "plan/parts.h"
#include "plan/placement.h"

namespace steelyard {
namespace {

constexpr int kWidth = 1000, kLeft = 190, kRight = 30, kTop = 118, kBar = 44, kPitch = 96;
constexpr double kBarWidth = kWidth - kLeft - kRight;

struct Colour {
  Purpose purpose;
  std::string_view fill, text;
};
// clang-format off
constexpr Colour kColours[] = {
    {Purpose::weights,     "#3465a4", "#fff"}, {Purpose::state,     "#4e9a06", "#fff"},
    {Purpose::workspace,   "#c17d11", "#fff"}, {Purpose::links,     "#75507b", "#fff"},
    {Purpose::executables, "#888a85", "#fff"}, {Purpose::context,   "#babdb6", "#000"},
    {Purpose::reserve,     "#d3d7cf", "#000"}, {Purpose::process,   "#babdb6", "#000"},
    {Purpose::staging,     "#ad7fa8", "#fff"},
};
// clang-format on

const Colour& colour_of(Purpose purpose) {
  const auto found = std::ranges::find(kColours, purpose, &Colour::purpose);
  return found == std::end(kColours) ? kColours[0] : *found;
}

// A device's bar, from the left: its lines, then what is free.
std::string bar(const PaperDevice& device, const PartPlan& part, double y, double scale) {
  std::string svg;
  double x = kLeft;
  for (const PlanLine& line : part.plan.lines) {
    const double width = static_cast<double>(line.bytes) * scale;
    const Colour& colour = colour_of(line.purpose);
    const std::string size = size_text(line.bytes, Rounding::up);
    svg += svg_rect(x, y, width, kBar, colour.fill,
                    fmt::format("{} {}: {}", purpose_name(line.purpose), size, line.note));
    if (width > 70)
      svg += svg_text(x + width / 2, y + kBar / 2.0 + 5, 13, size,
                      fmt::format("text-anchor=\"middle\" fill=\"{}\"", colour.text));
    x += width;
  }
  const double end = kLeft + static_cast<double>(device.memory) * scale;
  if (end - x > 90)
    svg += svg_text(
        (x + end) / 2, y + kBar / 2.0 + 5, 13,
        size_text(device.memory - std::min(part.plan.total(), device.memory), Rounding::down) + " free",
        "text-anchor=\"middle\" fill=\"#555\"");
  svg += fmt::format(
      "<rect x=\"{}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{}\" fill=\"none\" stroke=\"#2e3436\"/>\n",
      kLeft, y, end - kLeft, kBar);
  return svg;
}

std::string device_row(const PlacementInput& in, const PartPlan& part, double y, double scale) {
  const PaperDevice& d = in.fleet->devices[part.device];
  std::string svg = svg_text(kLeft - 14, y + 19, 16, d.id, "text-anchor=\"end\" font-weight=\"bold\"");
  svg += svg_text(kLeft - 14, y + 37, 12, d.title, "text-anchor=\"end\" fill=\"#555\"");
  svg += bar(d, part, y, scale);
  const std::string& note = part.plan.lines[0].note;  // "layers 0–31 of 64: 32/65 on CUDA0; Q4_K 8.1 GiB"
  svg += svg_text(kLeft, y + kBar + 18, 13, note.substr(0, note.find(';')), "fill=\"#333\"");
  const double end = kLeft + static_cast<double>(d.memory) * scale;
  const std::string size = size_text(d.memory, Rounding::down);
  if (end + 80 < kWidth) return svg + svg_text(end + 8, y + kBar / 2.0 + 5, 13, size, "fill=\"#555\"");
  return svg + svg_text(end, y + kBar + 18, 13, size, "text-anchor=\"end\" fill=\"#555\"");
}

std::string legend(const PlacementPlan& plan, double y) {
  std::string svg;
  double x = kLeft;
  for (const Colour& colour : kColours) {
    const bool used =
        std::ranges::any_of(plan.parts, [&](const PartPlan& p) { return p.plan.bytes(colour.purpose) > 0; });
    if (!used) continue;
    const std::string name = purpose_name(colour.purpose);
    svg += svg_rect(x, y - 11, 13, 13, colour.fill, name) + svg_text(x + 18, y, 13, name);
    x += 34 + 7.5 * static_cast<double>(name.size());
  }
  return svg;
}

std::string summary(const PlacementInput& in, const PlacementChoice& choice) {
  if (!choice.fits())
    return fmt::format("doesn't fit: {} too little", size_text(choice.short_bytes, Rounding::up));
  const PlacementCandidate& best = choice.candidates[0];
  std::string text = kind_text(in, best.placement) + ": " + layers_text(in, best.placement);
  if (best.prediction.tokens_per_second > 0)
    text += fmt::format("; predicted {} tokens/s", rate_text(best.prediction.tokens_per_second));
  return text;
}

std::string lacking(const PlacementChoice& choice, double y, double scale) {
  const double width = std::min(static_cast<double>(choice.short_bytes) * scale, kBarWidth);
  return svg_text(kLeft - 14, y + 19, 16, "lacking",
                  "text-anchor=\"end\" font-weight=\"bold\" fill=\"#a40000\"") +
         svg_rect(kLeft, y, width, kBar, "url(#lack)", "no device has room for this") +
         svg_text(kLeft, y + kBar + 18, 13,
                  fmt::format("{} of weights and KV state fit nowhere",
                              size_text(choice.short_bytes, Rounding::up)),
                  "fill=\"#a40000\"");
}

}  // namespace

std::string to_svg(const PlacementInput& in, const PlacementChoice& choice, const std::string& title) {
  const PlacementPlan plan = plan_memory(in, choice.fits() ? choice.candidates[0].placement : choice.filled);
  std::uint64_t most = choice.short_bytes;
  for (const PartPlan& p : plan.parts)
    most = std::max({most, in.fleet->devices[p.device].memory, p.plan.total()});
  const double scale = kBarWidth / static_cast<double>(std::max<std::uint64_t>(most, 1));
  std::string rows;
  double y = kTop;
  for (const PartPlan& part : plan.parts) rows += device_row(in, part, y, scale), y += kPitch;
  if (!choice.fits()) rows += lacking(choice, y, scale), y += kPitch;
  const double height = y + 6;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {:.0f}\" width=\"{}\" height=\"{:.0f}\" "
      "font-family=\"sans-serif\">\n",
      kWidth, height, kWidth, height);
  svg +=
      "<defs><pattern id=\"lack\" width=\"10\" height=\"10\" patternUnits=\"userSpaceOnUse\" "
      "patternTransform=\"rotate(45)\"><rect width=\"10\" height=\"10\" fill=\"#f5c6c6\"/>"
      "<rect width=\"4\" height=\"10\" fill=\"#cc0000\"/></pattern></defs>\n";
  svg += fmt::format("<rect width=\"{}\" height=\"{:.0f}\" fill=\"#fff\"/>\n", kWidth, height);
  svg += svg_text(kLeft, 34, 20, title, "font-weight=\"bold\"");
  svg += svg_text(kLeft, 58, 15, summary(in, choice) + " (on paper)");
  return svg + legend(plan, 92) + rows + "</svg>\n";
}

}  // namespace steelyard
