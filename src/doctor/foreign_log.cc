#include "doctor/foreign_log.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>

namespace steelyard::doctor {
namespace {

constexpr std::size_t kLongestLine = 4096;

bool has(std::string_view line, std::string_view what) { return line.find(what) != line.npos; }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  return text;
}

// What stands behind `what`; nullopt where the line hasn't got it.
std::optional<std::string_view> after(std::string_view line, std::string_view what) {
  const std::size_t at = line.find(what);
  if (at == line.npos) return std::nullopt;
  return trimmed(line.substr(at + what.size()));
}

// The number at the beginning.
std::optional<double> number(std::string_view text) {
  text = trimmed(text);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || !std::isfinite(value) || value < 0 || value > 1e18) return std::nullopt;
  return value;
}

std::uint32_t count(std::string_view text) {
  const auto value = number(text);
  return value && *value < 4e9 ? static_cast<std::uint32_t>(*value) : 0;
}

// "417.66 MiB", "9.0 GiB", "680 MB" as those logs mean it: powers of 1024.
std::uint64_t size_in(std::string_view text) {
  const auto value = number(text);
  if (!value) return 0;
  constexpr std::pair<std::string_view, int> kUnits[] = {{"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40},
                                                         {"KB", 10},  {"MB", 20},  {"GB", 30}};
  for (const auto& [unit, shift] : kUnits)
    if (const std::size_t at = text.find(unit); at != text.npos && at < 24)
      return *value < 1e9 ? static_cast<std::uint64_t>(*value * static_cast<double>(1ull << shift)) : 0;
  return static_cast<std::uint64_t>(*value);
}

// A value of a line of key=value, quoted or not; empty where there is none.
std::string value_of(std::string_view line, std::string_view key) {
  for (std::size_t at = line.find(key); at != line.npos; at = line.find(key, at + 1)) {
    const std::size_t equals = at + key.size();
    if (equals >= line.size() || line[equals] != '=' || (at > 0 && line[at - 1] != ' ')) continue;
    std::string_view rest = line.substr(equals + 1);
    if (rest.starts_with('"')) return std::string(rest.substr(1, rest.find('"', 1) - 1));
    return std::string(rest.substr(0, rest.find(' ')));
  }
  return {};
}

// "n_layer          = 64": the number behind the name and an equals sign.
std::uint32_t assigned(std::string_view line, std::string_view name) {
  for (std::size_t at = line.find(name); at != line.npos; at = line.find(name, at + 1)) {
    const std::string_view rest = trimmed(line.substr(at + name.size()));
    const bool whole = at == 0 || line[at - 1] == ' ';
    if (whole && rest.starts_with('=')) return count(rest.substr(1));
  }
  return 0;
}

bool names_gpu(std::string_view device) {
  for (const std::string_view kind : {"CUDA", "ROCm", "Vulkan", "SYCL", "Metal", "MTL"})
    if (device.starts_with(kind)) return !has(device, "_Host");
  return false;
}

// Reads line by line.
class Reader {
 public:
  void line(std::string_view line) {
    begins(line);
    offloaded(line);
    buffers(line);
    named_sizes(line);
    cards(line);
    figures(line);
    timings(line);
    troubles(line);
  }
  ForeignLog done() {
    log_.tokens_per_second = median(rates_);
    log_.prompt_tokens_per_second = median(prompt_rates_);
    if (log_.engine == Engine::ollama) name_cards_as_seen();
    return std::move(log_);
  }

 private:
  static double median(std::vector<double> values) {
    if (values.empty()) return 0;
    std::ranges::sort(values);
    return values[values.size() / 2];
  }

  // A model is loaded anew: what was known of the one before it goes.
  void begins(std::string_view line) {
    if (has(line, "ollama") || has(line, "source=server.go") || has(line, "source=routes.go") ||
        has(line, "[GIN]"))
      log_.engine = Engine::ollama;
    const bool file = has(line, "loaded meta data with");
    if (!file && !(has(line, "num_key_values=") && has(line, "architecture="))) return;
    // Ollama reads the file's header by itself before a runner does.
    if (has(line, "source=") && file) return;
    ++log_.loads;
    log_.weights.clear();
    log_.kv.clear();
    log_.compute.clear();
    log_.layers = log_.offloaded = 0;
    rates_.clear();
    prompt_rates_.clear();
    if (const auto from = after(line, " from "); from && file)
      log_.model = std::string(from->substr(0, from->find(" (version")));
    if (const std::string type = value_of(line, "file_type"); !type.empty()) log_.file_type = type;
  }

  void offloaded(std::string_view line) {
    const auto rest = after(line, "offloaded ");
    if (!rest || !has(*rest, "layers to GPU")) return;
    const std::size_t slash = rest->find('/');
    if (slash == rest->npos) return;
    log_.offloaded = count(*rest);
    log_.layers = count(rest->substr(slash + 1));
    log_.offloaded = std::min(log_.offloaded, log_.layers);
  }

  // "load_tensors:        CUDA0 model buffer size =  9106.10 MiB", also without "model"; KV, compute, output.
  void buffers(std::string_view line) {
    const std::size_t at = line.find(" buffer size");
    const std::size_t equals = at == line.npos ? at : line.find('=', at);
    if (equals == line.npos) return;
    std::string_view name = line.substr(0, at);
    if (const std::size_t colon = name.rfind(": "); colon != name.npos) name.remove_prefix(colon + 2);
    name = trimmed(name);
    std::string_view kind;
    if (const std::size_t blank = name.find(' '); blank != name.npos) {
      kind = trimmed(name.substr(blank));
      name = name.substr(0, blank);
    }
    if (name.empty() || name.size() > 32) return;
    const std::uint64_t bytes = size_in(line.substr(equals + 1));
    if (kind.empty() || kind == "model") log_.weights[std::string(name)] = bytes;
    if (kind == "KV" || kind == "RS") log_.kv[std::string(name)] += bytes;
    if (kind == "compute") log_.compute[std::string(name)] = bytes;
  }

  // Ollama's own engine: msg="model weights" device=CUDA0 size="9.0 GiB", and as it was before, buffer= or
  // backend=.
  void named_sizes(std::string_view line) {
    const std::string what = value_of(line, "msg");
    if (what != "model weights" && what != "kv cache" && what != "compute graph") return;
    std::string device = value_of(line, "device");
    if (device.empty()) device = value_of(line, what == "model weights" ? "buffer" : "backend");
    if (device.empty()) return;
    const std::uint64_t bytes = size_in(value_of(line, "size"));
    (what == "model weights" ? log_.weights : what == "kv cache" ? log_.kv : log_.compute)[device] = bytes;
    log_.engine = Engine::ollama;
  }

  void cards(std::string_view line) {
    if (const auto rest = after(line, "Device "); rest && has(*rest, "compute capability")) {
      const std::size_t colon = rest->find(": "), comma = rest->find(", compute");
      if (colon != rest->npos && comma != rest->npos && colon < comma)
        log_.cards["CUDA" + std::to_string(count(*rest))].name =
            std::string(rest->substr(colon + 2, comma - colon - 2));
    }
    if (const auto rest = after(line, "using device ");
        rest && has(*rest, "free")) {  // CUDA0 (NAME) (PCI) - N MiB free
      const std::size_t open = rest->find(" ("), close = rest->find(')'), dash = rest->rfind(" - ");
      if (open == rest->npos || close == rest->npos || dash == rest->npos || open > close) return;
      auto& card = log_.cards[std::string(rest->substr(0, open))];
      card.name = std::string(rest->substr(open + 2, close - open - 2));
      card.available = size_in(rest->substr(dash + 3));
    }
    if (value_of(line, "msg") == "inference compute") {
      std::string name = value_of(line, "description");
      const std::string id = value_of(line, "name");
      const bool numbered = names_gpu(id) && !name.empty();
      if (name.empty()) name = id;
      if (value_of(line, "library") == "cpu") return;
      auto& card = numbered ? log_.cards[id] : seen_.emplace_back();
      card = {name, size_in(value_of(line, "total")), size_in(value_of(line, "available"))};
    }
  }

  // Older versions of Ollama don't number the cards when they find them: they are CUDA0, CUDA1 … in that
  // order.
  void name_cards_as_seen() {
    for (std::size_t i = 0; i < seen_.size(); ++i) {
      auto& card = log_.cards["CUDA" + std::to_string(i)];
      if (card.name.empty()) card.name = seen_[i].name;
      if (card.total == 0) card.total = seen_[i].total;
      if (card.available == 0) card.available = seen_[i].available;
    }
  }

  void figures(std::string_view line) {
    const auto keep = [&](std::uint32_t& place, std::string_view name) {
      if (const std::uint32_t value = assigned(line, name)) place = value;
    };
    keep(log_.width, "n_embd");
    keep(log_.context, "n_ctx");
    keep(log_.context_train, "n_ctx_train");
    keep(log_.sequences, "n_seq_max");
    keep(log_.threads, "n_threads");
    if (has(line, "flash_attn")) {
      const auto rest = after(line, "flash_attn");
      const std::string_view value = trimmed(rest->substr(rest->starts_with('=') ? 1 : 0));
      if (value.starts_with('0') || value.starts_with("disabled")) log_.flash_attention = false;
      if (value.starts_with('1') || value.starts_with("enabled")) log_.flash_attention = true;
    }
    for (const std::string_view mark : {"file type", "model ftype"})
      if (const auto rest = after(line, mark); rest && rest->starts_with('='))
        log_.file_type = std::string(trimmed(rest->substr(1)));
    for (const std::string_view mark : {"file size", "model size"})
      if (const auto rest = after(line, mark); rest && rest->starts_with('=')) {
        log_.file_bytes = size_in(rest->substr(1));
        if (const std::size_t open = rest->find('('); open != rest->npos && has(*rest, "BPW"))
          log_.bits_per_weight = number(rest->substr(open + 1)).value_or(0);
      }
    if (const auto rest = after(line, "K ("); rest && has(line, "V ("))
      log_.kv_type = std::string(rest->substr(0, rest->find(')')));
    if (const auto rest = after(line, "type_k = '"))
      log_.kv_type = std::string(rest->substr(0, rest->find('\'')));
    if (const auto rest = after(line, "split_mode")) {
      for (const std::string_view mode : {"tensor", "row", "layer"})
        if (has(rest->substr(0, 24), mode)) log_.split = mode;
    }
    for (const std::string_view flag : {"--split-mode ", "-sm "})
      if (const auto rest = after(line, flag))
        for (const std::string_view mode : {"tensor", "row", "layer"})
          if (rest->starts_with(mode)) log_.split = mode;
  }

  // "eval time = 3422.11 ms / 48 tokens ( 71.29 ms per token, 14.03 tokens per second)"; "runs" in older
  // ones.
  void timings(std::string_view line) {
    const std::size_t at = line.find("eval time =");
    if (at == line.npos) return;
    const auto milliseconds = number(line.substr(at + 11));
    const auto slash = after(line.substr(at), "/");
    if (!milliseconds || !slash || *milliseconds <= 0) return;
    const double tokens = number(*slash).value_or(0);
    const double rate = 1000 * tokens / *milliseconds;
    if (at >= 7 && line.substr(at - 7, 7) == "prompt ") {
      if (tokens >= 16) prompt_rates_.push_back(rate);
      return;
    }
    ++log_.requests;
    log_.generated += static_cast<std::uint64_t>(tokens);
    if (tokens >= 8) rates_.push_back(rate);  // fewer tell more of the start than of the speed
  }

  void troubles(std::string_view line) {
    if (has(line, "truncating input prompt") || has(line, "input truncated") || has(line, "context shift"))
      ++log_.truncated;
    if (has(line, "forcing full prompt re-processing") || has(line, "failed to find a slot with cache"))
      ++log_.read_again;
    for (const std::string_view mark :
         {"no usable GPU found", "no compatible GPUs were discovered", "driver version is insufficient",
          "failed to initialize CUDA", "no CUDA-capable device"})
      if (has(line, mark)) log_.no_gpu = std::string(trimmed(line.substr(line.find(mark), 200)));
  }

  ForeignLog log_;
  std::vector<ForeignLog::Card> seen_;
  std::vector<double> rates_, prompt_rates_;
};

}  // namespace

ForeignLog read_log(std::string_view text) {
  Reader reader;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    reader.line(line.substr(0, kLongestLine));
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
  }
  return reader.done();
}

}  // namespace steelyard::doctor
