#include "api/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "engine/loaded_model.h"
#include "engine/page_pool.h"
#include "plan/plan.h"

namespace steelyard::api {
namespace {

std::string head(std::string_view name, std::string_view type, std::string_view help) {
  return fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

std::string counter(std::string_view name, std::string_view help, std::uint64_t value) {
  return head(name, "counter", help) + fmt::format("{} {}\n", name, value);
}

// A label's value: a name may hold anything but a line's end.
std::string label(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out + '"';
}

struct Gauge {
  std::string_view name, help;
  std::uint64_t (*value)(const EngineStats& stats);
};
constexpr Gauge kGauges[] = {
    {"steelyard_requests_running", "Requests that have a slot.",
     [](const EngineStats& s) -> std::uint64_t { return s.active; }},
    {"steelyard_requests_waiting", "Requests that wait for a slot.",
     [](const EngineStats& s) -> std::uint64_t { return s.waiting; }},
    {"steelyard_slots", "Requests that may run at once.",
     [](const EngineStats& s) -> std::uint64_t { return s.slots; }},
    {"steelyard_kv_pages", "Pages of KV state, in all groups.",
     [](const EngineStats& s) {
       std::uint64_t n = 0;
       for (const PoolUse& p : s.pools) n += p.pages;
       return n;
     }},
    {"steelyard_kv_pages_in_use", "Pages that running requests hold.",
     [](const EngineStats& s) {
       std::uint64_t n = 0;
       for (const PoolUse& p : s.pools) n += p.held;
       return n;
     }},
};

std::string models_text(const std::vector<ModelManager::Entry>& models) {
  std::string out;
  for (const Gauge& g : kGauges) {
    out += head(g.name, "gauge", g.help);
    for (const auto& m : models)
      out += fmt::format("{}{{model={}}} {}\n", g.name, label(m.name), g.value(m.model->engine().stats()));
  }
  out += head("steelyard_memory_bytes", "gauge", "Memory that a loaded model takes, as planned.");
  for (const auto& m : models)
    for (const DevicePlan& d : m.model->plan().devices) {
      std::map<std::string_view, std::uint64_t> by_purpose;
      for (const PlanLine& line : d.lines)
        if (line.purpose != Purpose::other_models && line.purpose != Purpose::reserve)
          by_purpose[purpose_name(line.purpose)] += line.bytes;
      for (const auto& [purpose, bytes] : by_purpose)
        out += fmt::format("steelyard_memory_bytes{{model={},device={},purpose={}}} {}\n", label(m.name),
                           label(d.device), label(purpose), bytes);
    }
  return out;
}

}  // namespace

void Histogram::add(double seconds) {
  const auto at = std::lower_bound(kBounds.begin(), kBounds.end(), seconds) - kBounds.begin();
  ++counts_[static_cast<std::size_t>(at)];
  sum_ += seconds;
}

std::string Histogram::text(std::string_view name, std::string_view help) const {
  std::string out = head(name, "histogram", help);
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < kBounds.size(); ++i)
    out += fmt::format("{}_bucket{{le=\"{}\"}} {}\n", name, kBounds[i], sum += counts_[i]);
  sum += counts_.back();
  return out + fmt::format("{}_bucket{{le=\"+Inf\"}} {}\n{}_sum {}\n{}_count {}\n", name, sum, name, sum_,
                           name, sum);
}

void Metrics::count(std::string_view path, unsigned status, std::span<const Answer> answers) {
  const std::lock_guard lock(mutex_);
  ++requests_[{std::string(path), status}];
  for (const Answer& a : answers) {
    prompt_tokens_ += a.prompt_tokens;
    cached_tokens_ += a.cached_tokens;
    generated_tokens_ += a.generated_tokens;
    preemptions_ += a.preemptions;
    queue_.add(static_cast<double>(a.queue_ns) / 1e9);
    if (a.generated_tokens > 0) first_token_.add(static_cast<double>(a.queue_ns + a.prompt_ns) / 1e9);
    if (a.generated_tokens > 1)
      between_tokens_.add(static_cast<double>(a.generation_ns) / 1e9 / (a.generated_tokens - 1));
  }
}

std::string Metrics::text(const ModelManager& models, std::string_view version) const {
  const std::vector<ModelManager::Entry> loaded = models.loaded();
  std::string out = head("steelyard_build_info", "gauge", "The program's version.") +
                    fmt::format("steelyard_build_info{{version={}}} 1\n", label(version)) +
                    head("steelyard_models_loaded", "gauge", "Models in memory.") +
                    fmt::format("steelyard_models_loaded {}\n", loaded.size()) + models_text(loaded);
  const std::lock_guard lock(mutex_);
  out +=
      head("steelyard_http_requests_total", "counter", "Requests answered; status 499: the client had gone.");
  for (const auto& [key, n] : requests_)
    out += fmt::format("steelyard_http_requests_total{{path={},status=\"{}\"}} {}\n", label(key.first),
                       key.second, n);
  return out +
         counter("steelyard_prompt_tokens_total", "Tokens of prompts, cached ones included.",
                 prompt_tokens_) +
         counter("steelyard_prompt_cached_tokens_total", "Tokens of prompts whose state was there.",
                 cached_tokens_) +
         counter("steelyard_generated_tokens_total", "Tokens of answers.", generated_tokens_) +
         counter("steelyard_preemptions_total", "Times an answer gave its pages to an older one.",
                 preemptions_) +
         queue_.text("steelyard_queue_seconds", "From a request to its first step.") +
         first_token_.text("steelyard_time_to_first_token_seconds", "From a request to its first token.") +
         between_tokens_.text("steelyard_time_between_tokens_seconds",
                              "An answer's mean time from token to token.");
}

}  // namespace steelyard::api
