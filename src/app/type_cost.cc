#include "app/type_cost.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/svg.h"
#include "base/units.h"

namespace steelyard {
namespace {

constexpr double kWidth = 1000, kHeight = 460, kTop = 90, kBottom = 400, kPanel = 390;
constexpr double kLeast = 1e-6;  // nat: what is less is drawn there

// Where a value lies on an axis that begins and ends a little beyond what is drawn.
struct Axis {
  double low, high, from, to;

  static Axis around(double low, double high, double from, double to) {
    const double margin = std::max(0.08 * (high - low), 0.02 * std::abs(high) + 1e-12);
    return {low - margin, high + margin, from, to};
  }
  double at(double value) const { return from + (value - low) / (high - low) * (to - from); }
};

struct Point {
  const TypeCost* row;
  double x, y;  // size or speed; log10 of the divergence
};

// Whether no other is nearer to the original without being larger, or slower (`sign` -1: less of x is
// better).
bool efficient(const Point& p, std::span<const Point> all, double sign) {
  return std::ranges::none_of(all, [&](const Point& q) {
    return sign * q.x >= sign * p.x && q.y <= p.y && (q.x != p.x || q.y != p.y);
  });
}

std::string joined(std::span<const Point> points, const Axis& x, const Axis& y, double sign) {
  std::vector<Point> best;
  for (const Point& p : points)
    if (efficient(p, points, sign)) best.push_back(p);
  std::ranges::sort(best, {}, &Point::x);
  std::string line;
  for (const Point& p : best) line += fmt::format("{:.1f},{:.1f} ", x.at(p.x), y.at(p.y));
  return fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"#3465a4\" stroke-width=\"2\"/>\n", line);
}

std::string marks(std::span<const Point> points, const Axis& x, const Axis& y, double sign) {
  std::string svg;
  for (const Point& p : points) {
    const bool good = efficient(p, points, sign);
    svg += fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"6\" fill=\"{}\"><title>{}</title></circle>\n", x.at(p.x),
        y.at(p.y), good ? "#3465a4" : "#babdb6",
        svg_escaped(fmt::format("{}: {}, mean KL {:.2g}, {:.1f} tokens/s", p.row->type,
                                size_text(p.row->bytes), p.row->score.mean_divergence(), p.row->generated)));
    svg += svg_text(x.at(p.x) + 9, y.at(p.y) + (good ? -8 : 18), 13, p.row->type,
                    good ? "font-weight=\"bold\"" : "fill=\"#555\"");
  }
  return svg;
}

std::string frame(double left, const Axis& y, std::string_view title) {
  std::string svg =
      fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#888a85\"/>\n",
                  left, kTop, kPanel, kBottom - kTop);
  svg += svg_text(left, kTop - 12, 14, title, "font-weight=\"bold\"");
  for (int power = static_cast<int>(std::ceil(y.low)); power <= y.high; ++power) {
    svg += fmt::format("<line x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#d3d7cf\"/>\n", left,
                       left + kPanel, y.at(power), y.at(power));
    svg += svg_text(left - 8, y.at(power) + 4, 12, fmt::format("{:g}", std::pow(10.0, power)),
                    "text-anchor=\"end\" fill=\"#555\"");
  }
  return svg;
}

// `x_of`: what the panel shows divergence against; `label` writes a value of it.
template <typename XOf, typename Label>
std::string panel(std::span<const TypeCost> made, double left, double sign, std::string_view title, XOf x_of,
                  Label label) {
  std::vector<Point> points;
  for (const TypeCost& r : made)
    points.push_back({&r, x_of(r), std::log10(std::max(r.score.mean_divergence(), kLeast))});
  const auto [x_low, x_high] = std::ranges::minmax(points, {}, &Point::x);
  const auto [y_low, y_high] = std::ranges::minmax(points, {}, &Point::y);
  const Axis x = Axis::around(x_low.x, x_high.x, left + 10, left + kPanel - 50);
  const Axis y = Axis::around(y_low.y, y_high.y, kBottom - 10, kTop + 20);
  std::string svg = frame(left, y, title) + joined(points, x, y, sign) + marks(points, x, y, sign);
  for (const Point* p : {&x_low, &x_high})
    svg += svg_text(x.at(p->x), kBottom + 20, 12, label(p->x), "text-anchor=\"middle\" fill=\"#555\"");
  return svg;
}

}  // namespace

double TypeCost::same_top() const {
  return static_cast<double>(score.same_top) /
         static_cast<double>(std::max<std::size_t>(1, score.divergences.size()));
}

std::string to_svg(std::span<const TypeCost> rows, const std::string& title) {
  const std::span<const TypeCost> made = rows.subspan(1);
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" "
      "font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
      kWidth, kHeight);
  svg += svg_text(70, 34, 18, title, "font-weight=\"bold\"");
  svg +=
      svg_text(70, 56, 13, "mean divergence from the model as it is (nat, lower is better)", "fill=\"#555\"");
  if (!made.empty()) {
    svg += panel(
        made, 70, -1, "against size", [](const TypeCost& r) { return static_cast<double>(r.bytes); },
        [](double bytes) { return size_text(static_cast<std::uint64_t>(bytes)); });
    svg += panel(
        made, 560, 1, "against speed, tokens/s", [](const TypeCost& r) { return r.generated; },
        [](double rate) { return fmt::format("{:.1f}", rate); });
  }
  return svg + svg_text(70, kHeight - 14, 12, "joined: those that no other beats in both", "fill=\"#555\"") +
         "</svg>\n";
}

}  // namespace steelyard
