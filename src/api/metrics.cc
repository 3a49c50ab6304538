#include "api/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "api/metrics_machine.h"
#include "engine/loaded_model.h"
#include "engine/page_pool.h"
#include "observe/step_log.h"
#include "observe/telemetry.h"
#include "plan/plan.h"

namespace steelyard::api {
namespace {

std::string counter(std::string_view name, std::string_view help, std::uint64_t value) {
  return metric_head(name, "counter", help) + fmt::format("{} {}\n", name, value);
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

// Seconds of steps beside what the machine's limit allowed them: their quotient is achieved ÷ limit.
struct StepCounter {
  std::string_view name, help;
  double (*value)(const StepTotals& steps);
};
constexpr StepCounter kStepCounters[] = {
    {"steelyard_steps_total", "Steps that were run.",
     [](const StepTotals& t) { return static_cast<double>(t.steps); }},
    {"steelyard_step_generated_tokens_total", "Tokens that steps generated.",
     [](const StepTotals& t) { return static_cast<double>(t.decode_rows); }},
    {"steelyard_step_prompt_tokens_total", "Tokens of prompts that steps read.",
     [](const StepTotals& t) { return static_cast<double>(t.prefill_rows); }},
    {"steelyard_step_seconds_total", "Time in steps.", [](const StepTotals& t) { return t.busy_seconds; }},
    {"steelyard_step_measured_seconds_total", "Time in steps whose limit is known.",
     [](const StepTotals& t) { return t.known_seconds; }},
    {"steelyard_step_limit_seconds_total", "Time that those would take at the machine's measured limit.",
     [](const StepTotals& t) { return t.limit_seconds; }},
};

// Achieved ÷ limit of the last steps, at most 1; 0: unknown.
double recent_achieved(const Engine& engine) {
  double limit = 0, took = 0;
  for (const StepRecord& r : engine.recent_steps(64))
    if (r.limit_seconds > 0) limit += r.limit_seconds, took += 1e-9 * static_cast<double>(r.host_ns);
  return took > 0 ? std::min(1.0, limit / took) : 0;
}

std::string steps_text(const std::vector<ModelManager::Entry>& models) {
  std::string out;
  for (const StepCounter& c : kStepCounters) {
    out += metric_head(c.name, "counter", c.help);
    for (const auto& m : models)
      out += fmt::format("{}{{model={}}} {}\n", c.name, metric_label(m.name),
                         c.value(m.model->engine().stats().steps));
  }
  out += metric_head("steelyard_achieved_over_limit", "gauge",
                     "Speed of the last steps as a share of the machine's limit; 0: unknown.");
  for (const auto& m : models)
    out += fmt::format("steelyard_achieved_over_limit{{model={}}} {}\n", metric_label(m.name),
                       recent_achieved(m.model->engine()));
  return out;
}

std::string models_text(const std::vector<ModelManager::Entry>& models) {
  std::string out;
  for (const Gauge& g : kGauges) {
    out += metric_head(g.name, "gauge", g.help);
    for (const auto& m : models)
      out += fmt::format("{}{{model={}}} {}\n", g.name, metric_label(m.name),
                         g.value(m.model->engine().stats()));
  }
  out += metric_head("steelyard_memory_bytes", "gauge", "Memory that a loaded model takes, as planned.");
  for (const auto& m : models)
    for (const DevicePlan& d : m.model->plan().devices) {
      std::map<std::string_view, std::uint64_t> by_purpose;
      for (const PlanLine& line : d.lines)
        if (line.purpose != Purpose::other_models && line.purpose != Purpose::reserve)
          by_purpose[purpose_name(line.purpose)] += line.bytes;
      for (const auto& [purpose, bytes] : by_purpose)
        out += fmt::format("steelyard_memory_bytes{{model={},device={},purpose={}}} {}\n",
                           metric_label(m.name), metric_label(d.device), metric_label(purpose), bytes);
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
  std::string out = metric_head(name, "histogram", help);
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

std::string Metrics::history() const {
  return telemetry_ ? machine_history(*telemetry_) : "{\"points\": []}";
}

std::string Metrics::text(const ModelManager& models, std::string_view version) const {
  const std::vector<ModelManager::Entry> loaded = models.loaded();
  std::string out = metric_head("steelyard_build_info", "gauge", "The program's version.") +
                    fmt::format("steelyard_build_info{{version={}}} 1\n", metric_label(version)) +
                    metric_head("steelyard_models_loaded", "gauge", "Models in memory.") +
                    fmt::format("steelyard_models_loaded {}\n", loaded.size()) + models_text(loaded) +
                    steps_text(loaded) + (telemetry_ ? machine_metrics(*telemetry_) : std::string());
  const std::lock_guard lock(mutex_);
  out += metric_head("steelyard_http_requests_total", "counter",
                     "Requests answered; status 499: the client had gone.");
  for (const auto& [key, n] : requests_)
    out += fmt::format("steelyard_http_requests_total{{path={},status=\"{}\"}} {}\n", metric_label(key.first),
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
