#include "engine/placement.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "base/error.h"
#include "base/largest.h"

namespace steelyard {
namespace {

constexpr const char* kForm =
    "give auto, single, stages, ranks, or devices with their layers in order, such as cpu:0-9,cuda0:10-, or "
    "devices that share all layers, such as cuda0+cuda1";

std::uint32_t parse_layer(std::string_view digits, std::string_view range) {
  std::uint32_t n = 0;
  const auto [rest, error] = std::from_chars(digits.data(), digits.data() + digits.size(), n);
  if (digits.empty() || error != std::errc() || rest != digits.data() + digits.size())
    throw_error(ErrorKind::bad_input, "'{}' is no range of layers: write 0-31, or 32- for the rest", range);
  return n;
}

// Most layers, from the end at `end` down, that the device has room for.
std::uint32_t most_layers(std::size_t device, std::uint32_t end, const HasRoom& has_room) {
  return largest(end, [&](std::uint32_t n) { return has_room(device, {end - n, end}); });
}

// `n` cut in proportion to `most`, each at most that; the sum of `most` is at least n.
std::vector<std::uint32_t> shares(std::uint32_t n, const std::vector<std::uint32_t>& most) {
  const std::uint64_t all = std::accumulate(most.begin(), most.end(), std::uint64_t{0});
  std::vector<std::uint32_t> result;
  std::uint64_t before = 0, given = 0;
  for (const std::uint32_t m : most) {
    before += m;
    const std::uint64_t until = before * n / all;
    result.push_back(static_cast<std::uint32_t>(until - given));
    given = until;
  }
  return result;
}

// "cuda0:10-31", "cuda0+cuda1:10-31", "cuda0+cuda1".
void add_devices(std::string_view item, PlacementWish& wish) {
  const std::size_t colon = std::min(item.find(':'), item.size());
  std::string_view names = item.substr(0, colon);
  if (colon == item.size() && names.find('+') == std::string_view::npos)
    throw_error(ErrorKind::bad_input, "'{}' is no placement: {}", item, kForm);
  const std::string layers(colon == item.size() ? "0-" : item.substr(colon + 1));
  for (bool first = true;; first = false) {
    const std::size_t plus = names.find('+');
    const std::string_view name = names.substr(0, plus);
    const DeviceName device = parse_device(name);
    if (device.kind == DeviceName::Kind::automatic)
      throw_error(ErrorKind::bad_input, "a placement names its devices: {}", kForm);
    for (const auto& other : wish.given)
      if (other.device == device) throw_error(ErrorKind::bad_input, "the placement names {} twice", name);
    wish.given.push_back({device, layers, !first});
    if (plus == std::string_view::npos) return;
    names.remove_prefix(plus + 1);
  }
}

}  // namespace

PlacementWish parse_placement(std::string_view text) {
  using Kind = PlacementWish::Kind;
  if (text.empty() || text == "auto") return {Kind::automatic, {}};
  if (text == "single") return {Kind::single, {}};
  if (text == "stages") return {Kind::stages, {}};
  if (text == "ranks") return {Kind::ranks, {}};
  PlacementWish wish{Kind::given, {}};
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    add_devices(text.substr(0, comma), wish);
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return wish;
}

std::vector<DeviceStage> stages_given(const PlacementWish& wish, std::uint32_t n) {
  std::vector<DeviceStage> stages;
  std::uint32_t next = 0;
  for (const auto& [device, range, with_previous] : wish.given) {
    if (with_previous) {
      stages.push_back({device, stages.back().layers});
      continue;
    }
    const std::string_view text = range;
    const std::size_t dash = text.find('-');
    if (dash == std::string_view::npos) parse_layer("", range);
    const std::uint32_t first = parse_layer(text.substr(0, dash), range);
    std::uint32_t end = dash + 1 == text.size() ? n : parse_layer(text.substr(dash + 1), range) + 1;
    if (end == n + 1) end = n;
    if (first != next || end <= first || end > n)
      throw_error(ErrorKind::bad_input, "the placement's layers {} don't go on from layer {} of 0 to {}",
                  range, next, n - 1);
    stages.push_back({device, {first, next = end}});
  }
  if (next != n)
    throw_error(ErrorKind::bad_input, "the placement ends before layer {}, but the model has layers 0 to {}",
                next, n - 1);
  return stages;
}

std::vector<DeviceStage> stages_by_room(const std::vector<DeviceName>& devices, std::uint32_t n,
                                        const HasRoom& has_room) {
  const std::size_t fast = devices.size() - 1;
  std::vector<std::uint32_t> most(fast);
  std::uint64_t together = 0;
  std::uint32_t end = n;
  for (std::size_t i = fast; i-- > 0;) {  // from the output layer down
    most[i] = most_layers(i, end, has_room);
    together += most[i];
    end -= std::min(end, most[i]);
  }
  std::vector<DeviceStage> stages;
  if (end > 0) {
    if (!has_room(fast, {0, end})) return {};
    stages.push_back({devices[fast], {0, end}});
  } else {
    for (std::size_t i = 0; i < fast; ++i) most[i] = most_layers(i, n, has_room);
    most = shares(n, most);
  }
  for (std::size_t i = 0; i < fast; ++i)
    if (most[i] > 0) {
      stages.push_back({devices[i], {end, end + most[i]}});
      end += most[i];
    }
  return stages;
}

}  // namespace steelyard
