#include "plan/fleet.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/units.h"

namespace steelyard {
namespace {

// Memory and bandwidth: each card's page at nvidia.com; of the H200's 141 GB its driver shows 140.4 GiB.
// Operations: dense, f16 inputs, sums in f32. A GeForce SM does 512 of them a clock, so it is SMs x boost
// clock x 512, which gives what the architectures' papers print for the cards that are in them:
//  - "NVIDIA Ampere GA102 GPU architecture" (2020): 3070, 3080, 3090. Others: 3060 28 SMs at 1.777 GHz,
//    3060 Ti 38 at 1.665, 3080 Ti 80 at 1.665, 3090 Ti 84 at 1.86.
//  - "NVIDIA Ada GPU architecture" (2023): 4080, 4090. Others: 4060 24 at 2.46, 4060 Ti 34 at 2.535, 4070 46
//    at 2.475, 4070 Super 56 at 2.475, 4070 Ti 60 at 2.61, 4070 Ti Super 66 at 2.61, 4080 Super 80 at 2.55.
//  - "NVIDIA RTX Blackwell GPU architecture" (2025): 5070, 5070 Ti, 5080, 5090. Others: 5060 30 at 2.497,
//    5060 Ti 36 at 2.572.
//  - A100 (40 and 80 GB, SXM; 2048 a clock), H100 SXM and H200 SXM (4096): their datasheets of 2021, 2022 and
//    2023, whose figures "with sparsity" are twice these.
// clang-format off
constexpr std::array kCards = {
    Card{"3060",      "RTX 3060",           12,  360,  25.5,  512, "pcie4x16"},
    Card{"3060ti",    "RTX 3060 Ti",         8,  448,  32.4,  512, "pcie4x16"},
    Card{"3070",      "RTX 3070",            8,  448,  40.6,  512, "pcie4x16"},
    Card{"3080",      "RTX 3080",           10,  760,  59.5,  512, "pcie4x16"},
    Card{"3080ti",    "RTX 3080 Ti",        12,  912,  68.2,  512, "pcie4x16"},
    Card{"3090",      "RTX 3090",           24,  936,  71.0,  512, "pcie4x16"},
    Card{"3090ti",    "RTX 3090 Ti",        24, 1008,  80.0,  512, "pcie4x16"},
    Card{"4060",      "RTX 4060",            8,  272,  30.2,  512, "pcie4x8"},
    Card{"4060ti",    "RTX 4060 Ti 16 GB",  16,  288,  44.1,  512, "pcie4x8"},
    Card{"4070",      "RTX 4070",           12,  504,  58.3,  512, "pcie4x16"},
    Card{"4070super", "RTX 4070 Super",     12,  504,  71.0,  512, "pcie4x16"},
    Card{"4070ti",    "RTX 4070 Ti",        12,  504,  80.2,  512, "pcie4x16"},
    Card{"4070tisuper", "RTX 4070 Ti Super", 16, 672,  88.2,  512, "pcie4x16"},
    Card{"4080",      "RTX 4080",           16,  717,  97.5,  512, "pcie4x16"},
    Card{"4080super", "RTX 4080 Super",     16,  736, 104.4,  512, "pcie4x16"},
    Card{"4090",      "RTX 4090",           24, 1008, 165.2,  512, "pcie4x16"},
    Card{"5060",      "RTX 5060",            8,  448,  38.4,  512, "pcie5x8"},
    Card{"5060ti",    "RTX 5060 Ti 16 GB",  16,  448,  47.4,  512, "pcie5x8"},
    Card{"5070",      "RTX 5070",           12,  672,  61.7,  512, "pcie5x16"},
    Card{"5070ti",    "RTX 5070 Ti",        16,  896,  87.9,  512, "pcie5x16"},
    Card{"5080",      "RTX 5080",           16,  960, 112.6,  512, "pcie5x16"},
    Card{"5090",      "RTX 5090",           32, 1792, 209.5,  512, "pcie5x16"},
    Card{"a100-40",   "A100 40 GB",         40, 1555, 312.0, 2048, "nvlink3"},
    Card{"a100",      "A100 80 GB",         80, 2039, 312.0, 2048, "nvlink3"},
    Card{"h100",      "H100 SXM",           80, 3350, 989.5, 4096, "nvlink"},
    Card{"h200",      "H200 SXM",          140, 4800, 989.5, 4096, "nvlink"},
};

// Large copies one way, GB/s. NVLink 4 and PCIe 5 x16: measured on two H200s (396 and 55); the others by what
// they have of those (NVLink 3: two thirds; PCIe 4 half, PCIe 3 a quarter, fewer lanes in proportion).
struct LinkKind { std::string_view name, title; double gb; bool peer; };
constexpr std::array kLinks = {
    LinkKind{"nvlink",   "NVLink",     396,   true},
    LinkKind{"nvlink3",  "NVLink 3",   264,   true},
    LinkKind{"pcie5x16", "PCIe 5 x16",  55,   false},
    LinkKind{"pcie5x8",  "PCIe 5 x8",   27.5, false},
    LinkKind{"pcie5x4",  "PCIe 5 x4",   13.8, false},
    LinkKind{"pcie4x16", "PCIe 4 x16",  27.5, false},
    LinkKind{"pcie4x8",  "PCIe 4 x8",   13.8, false},
    LinkKind{"pcie4x4",  "PCIe 4 x4",    6.9, false},
    LinkKind{"pcie3x16", "PCIe 3 x16",  13.8, false},
    LinkKind{"pcie3x8",  "PCIe 3 x8",    6.9, false},
    LinkKind{"pcie3x4",  "PCIe 3 x4",    3.4, false},
    LinkKind{"pcie3x1",  "PCIe 3 x1",    0.9, false},
};
// clang-format on

constexpr std::uint32_t kMostDevices = 16;
constexpr double kUsualSmOperations = 512;

std::string lower(std::string_view text) {
  std::string low;
  for (const char c : text)
    if (c != ' ') low += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return low;
}

const Card* find_card(std::string name) {
  if (name.starts_with("rtx")) name.erase(0, name.find_first_not_of("-_", 3));
  const auto found = std::ranges::find(kCards, std::string_view(name), &Card::name);
  return found == kCards.end() ? nullptr : &*found;
}

std::optional<DeviceLink> find_link(std::string_view name) {
  const auto found = std::ranges::find(kLinks, name, &LinkKind::name);
  if (found == kLinks.end()) return std::nullopt;
  return DeviceLink{std::string(found->title), found->gb * 1e9, found->peer};
}

[[noreturn]] void bad_item(std::string_view item, std::string_view why) {
  throw_error(ErrorKind::bad_input, "'{}' {}", item, why);
}

// "936GB/s" as bytes a second; "71TFLOP/s", "71T" as operations a second.
double parse_rate(std::string_view item, std::string_view text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  if (error == std::errc() && number >= 0.1 && number < 1e6) {
    for (const std::string_view name : {"gb/s", "gb"})
      if (unit == name) return number * 1e9;
    if (unit == "tb/s") return number * 1e12;
    for (const std::string_view name : {"t", "tflop/s", "tflops", "top/s", "tops"})
      if (unit == name) return -number * 1e12;
  }
  bad_item(item, "has a rate that isn't one: write 936GB/s, or 71TFLOP/s for products");
}

// What stands behind the size, "@936GB/s@71TFLOP/s".
void parse_rates(std::string_view item, std::string_view rates, PaperDevice& device) {
  while (!rates.empty()) {
    const std::string_view rate = rates.substr(0, rates.find('@'));
    const double value = parse_rate(item, rate);
    if (value > 0) {
      device.read_bytes_per_second = value;
    } else {
      device.multiplies_per_second = -value;
      device.sm_cycles_per_second = -value / kUsualSmOperations;
    }
    rates.remove_prefix(std::min(rates.size(), rate.size() + 1));
  }
}

std::string size_title(const PaperDevice& d) {
  std::string text = size_text(d.memory, Rounding::down);
  if (d.read_bytes_per_second > 0) text += fmt::format(" at {:.4g} GB/s", d.read_bytes_per_second / 1e9);
  return text;
}

PaperDevice sized_device(std::string_view item, std::string_view text) {
  const std::size_t at = std::min(text.find('@'), text.size());
  PaperDevice device;
  try {
    device.memory = parse_size(text.substr(0, at));
  } catch (const Error&) {
    bad_item(item, "is neither a card nor a size: write 3090, 24GiB or 24GiB@936GB/s");
  }
  parse_rates(item, text.substr(std::min(at + 1, text.size())), device);
  device.title = size_title(device);
  return device;
}

// One text's items, taken in order.
class FleetParser {
 public:
  void take(std::string_view item) {
    const std::string text = lower(item);
    if (text.empty()) bad_item(item, "is empty: write one device, or several with ',' between them");
    if (text == "p2p" || text == "peer") {
      peer_ = true;
    } else if (const auto link = find_link(text)) {
      link_ = link;
    } else if (text.starts_with("link:")) {
      link_ = DeviceLink{text.substr(5), parse_rate(item, std::string_view(text).substr(5)), true};
      if (link_->bytes_per_second < 0) bad_item(item, "is no link: write link:50GB/s");
    } else if (text.starts_with("pcie") || text.starts_with("nvlink")) {
      bad_item(item, "is no link that is known: pcie3x1 to pcie5x16, nvlink, nvlink3, or link:50GB/s");
    } else if (text == "cpu" || text.starts_with("cpu:")) {
      take_cpu(item, text);
    } else {
      take_gpus(item, text);
    }
  }

  PaperFleet finish() {
    PaperFleet& f = fleet_;
    if (f.devices.empty() && !cpu_) throw_error(ErrorKind::bad_input, "--devices names a link and no device");
    if (cpu_) f.devices.push_back(*cpu_), gpu_links_.emplace_back("pcie4x16");
    f.links.resize(f.devices.size() * f.devices.size());
    for (std::size_t a = 0; a < f.devices.size(); ++a)
      for (std::size_t b = a + 1; b < f.devices.size(); ++b) f.set_link(a, b, between(a, b));
    check_rates();
    return std::move(f);
  }

 private:
  void take_cpu(std::string_view item, std::string_view text) {
    if (cpu_) bad_item(item, "is the second CPU: name it once");
    if (text == "cpu") bad_item(item, "lacks its memory: write cpu:64GiB@80GB/s");
    cpu_ = sized_device(item, text.substr(4));
    cpu_->id = "CPU", cpu_->host = true;
  }

  // "2x3090", "3090", "2x24GiB@936GB/s".
  void take_gpus(std::string_view item, std::string_view text) {
    std::uint32_t count = 1;
    const std::size_t times = text.find('x');
    if (times != std::string_view::npos && times > 0 && times < 4) {
      const auto [end, error] = std::from_chars(text.data(), text.data() + times, count);
      if (error == std::errc() && end == text.data() + times) text.remove_prefix(times + 1);
    }
    if (count < 1 || fleet_.devices.size() + count > kMostDevices)
      bad_item(item, fmt::format("makes it no device or more than {}", kMostDevices));
    const Card* card = find_card(std::string(text));
    PaperDevice device = card ? card_device(*card) : sized_device(item, text);
    for (std::uint32_t i = 0; i < count; ++i) {
      device.id = fmt::format("CUDA{}", fleet_.devices.size());
      fleet_.devices.push_back(device);
      gpu_links_.emplace_back(card ? card->link : "pcie4x16");
    }
  }

  static PaperDevice card_device(const Card& card) {
    return {.title = std::string(card.title),
            .memory = std::uint64_t{card.memory_gib} << 30,
            .read_bytes_per_second = card.read_gb * 1e9,
            .multiplies_per_second = card.multiply_t * 1e12,
            .sm_cycles_per_second = card.multiply_t * 1e12 / card.sm_operations,
            .hopper = card.name.starts_with("h")};
  }

  // What was said, else what the slower of the two has; a CPU is always behind PCIe.
  DeviceLink between(std::size_t a, std::size_t b) const {
    const auto usual = [&](std::size_t i) {
      const bool nvlink = gpu_links_[i].starts_with("nvlink");
      const bool same = gpu_links_[a] == gpu_links_[b];
      return *find_link(nvlink && !same ? (gpu_links_[i] == "nvlink" ? "pcie5x16" : "pcie4x16")
                                        : gpu_links_[i]);
    };
    const bool host = fleet_.devices[a].host || fleet_.devices[b].host;
    DeviceLink link =
        usual(a).bytes_per_second < usual(b).bytes_per_second || fleet_.devices[b].host ? usual(a) : usual(b);
    if (link_ && !(host && link_->peer)) link = *link_;
    if (host) {
      link.peer = false;
    } else if (peer_ && !link.peer) {
      link.peer = true, link.name += " with peer access";
    }
    return link;
  }

  // All or none: a plan by guessed rates beside known ones would be neither.
  void check_rates() {
    PaperFleet& f = fleet_;
    const auto unknown = [](const PaperDevice& d) { return d.read_bytes_per_second <= 0; };
    const auto lacking = std::ranges::find_if(f.devices, unknown);
    if (lacking == f.devices.end()) return;
    if (!std::ranges::all_of(f.devices, unknown))
      throw_error(ErrorKind::bad_input,
                  "--devices: {} has no memory bandwidth and others have: write it as 24GiB@936GB/s, for all "
                  "or for none",
                  lacking->id);
    if (f.devices.back().host)
      throw_error(ErrorKind::bad_input,
                  "--devices: a CPU beside GPUs takes bandwidths to choose by: write cpu:64GiB@80GB/s and "
                  "24GiB@936GB/s");
    f.note =
        "no bandwidth is given (24GiB@936GB/s), so all devices count as equally fast and no speed is "
        "predicted";
  }

  PaperFleet fleet_;
  std::vector<std::string_view> gpu_links_;  // by device
  std::optional<PaperDevice> cpu_;
  std::optional<DeviceLink> link_;
  bool peer_ = false;
};

}  // namespace

std::span<const Card> cards() { return kCards; }

bool PaperDevice::as_fast(const PaperDevice& o) const {
  return host == o.host && read_bytes_per_second == o.read_bytes_per_second &&
         multiplies_per_second == o.multiplies_per_second && sm_cycles_per_second == o.sm_cycles_per_second;
}

bool PaperDevice::alike(const PaperDevice& o) const { return memory == o.memory && as_fast(o); }

void PaperFleet::set_link(std::size_t a, std::size_t b, const DeviceLink& link) {
  links[a * devices.size() + b] = links[b * devices.size() + a] = link;
}

bool PaperFleet::rates_known() const {
  return std::ranges::all_of(devices, [](const PaperDevice& d) { return d.read_bytes_per_second > 0; });
}

bool is_fleet(std::string_view text) {
  try {
    parse_size(text);
    return false;
  } catch (const Error&) {
  }
  // A number alone is a size that lacks its unit, unless a card is called so.
  const std::string low = lower(text);
  return find_card(low) || low.find_first_not_of("0123456789.") != std::string::npos;
}

PaperFleet parse_fleet(std::string_view text) {
  FleetParser parser;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find_first_of(",+", begin), text.size());
    parser.take(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parser.finish();
}

std::string fleet_grammar() {
  std::string text =
      "Devices on paper (LIST): items with ',' or '+' between them.\n"
      "  2x3090, h200             cards by name, see below\n"
      "  24GiB@936GB/s@71TFLOP/s  any GPU: memory, its bandwidth, f16 products summed in f32\n"
      "  cpu:64GiB@80GB/s         the CPU may take layers too\n"
      "  pcie4x16, nvlink, link:50GB/s    joins the GPUs; p2p: PCIe with peer access\n"
      "Cards:";
  std::size_t column = 6;
  for (const Card& card : kCards) {
    if (column + card.name.size() > 95) text += "\n ", column = 1;
    text += fmt::format(" {}", card.name);
    column += card.name.size() + 1;
  }
  return text;
}

}  // namespace steelyard
