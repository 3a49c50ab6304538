// What the server counts, for Prometheus. The format is a few lines of text, and most values lie in the
// engines already: a library would bring threads and a web server of its own for less than what is written
// here.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "engine/engine.h"
#include "engine/model_manager.h"
#include "observe/telemetry.h"

namespace steelyard::api {

// Times in seconds, by bounds from a millisecond to five minutes.
class Histogram {
 public:
  void add(double seconds);
  // Lines of Prometheus' text format.
  std::string text(std::string_view name, std::string_view help) const;

 private:
  static constexpr std::array kBounds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,  0.25,
                                         0.5,   1.0,    2.5,   5.0,  10.0,  30.0, 60.0, 300.0};
  std::array<std::uint64_t, kBounds.size() + 1> counts_{};  // by bound, the last: beyond
  double sum_ = 0;
};

// Thread-safe.
class Metrics {
 public:
  // `path`: a route's, so that there are few.
  void count(std::string_view path, unsigned status, std::span<const Answer> answers);
  // The machine's own figures, from now on; before requests come.
  void watch(std::shared_ptr<const Telemetry> telemetry) { telemetry_ = std::move(telemetry); }
  // The machine's last hour, as JSON.
  std::string history() const;
  // Everything, with the loaded models' own figures.
  std::string text(const ModelManager& models, std::string_view version) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, unsigned>, std::uint64_t> requests_;  // by path and status
  std::uint64_t prompt_tokens_ = 0, cached_tokens_ = 0, generated_tokens_ = 0, preemptions_ = 0;
  Histogram queue_, first_token_, between_tokens_;
  std::shared_ptr<const Telemetry> telemetry_;  // may be null
};

}  // namespace steelyard::api
