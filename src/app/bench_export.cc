#include "app/bench_export.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace steelyard {
namespace {

double mean(const std::vector<double>& values) {
  return values.empty()
             ? 0
             : std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double deviation(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const double middle = mean(values);
  double sum = 0;
  for (const double v : values) sum += (v - middle) * (v - middle);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

double median(const std::vector<double>& ascending) {
  const std::size_t half = ascending.size() / 2;
  if (ascending.empty()) return 0;
  return ascending.size() % 2 ? ascending[half] : (ascending[half - 1] + ascending[half]) / 2;
}

// Nanoseconds of each run.
std::vector<double> times(const BenchRow& row) {
  std::vector<double> list;
  for (const double rate : row.rates) list.push_back(1e9 * row.what.tokens * row.what.streams / rate);
  return list;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + '"';
}

// In a table's cell nothing may end it.
std::string cell(std::string text) {
  std::ranges::replace(text, '|', '/');
  std::ranges::replace(text, '\n', ' ');
  return text;
}

// "pp512", "tg128 @ d2048", as llama-bench names them; several streams stand behind.
std::string test_name(const BenchCase& c) {
  std::string name = fmt::format("{}{}", c.kind == BenchCase::Kind::prompt ? "pp" : "tg", c.tokens);
  if (c.depth) name += fmt::format(" @ d{}", c.depth);
  if (c.streams > 1) name += fmt::format(" x{}", c.streams);
  return name;
}

}  // namespace

std::string bench_csv_head() {
  return "build_commit,cpu_info,gpu_info,backends,model_filename,model_type,model_size,model_n_params,n_"
         "batch,n_threads,"
         "type_k,type_v,n_prompt,n_gen,n_depth,n_parallel,test_time,avg_ns,stddev_ns,avg_ts,stddev_ts\n";
}

std::string bench_csv(const BenchSubject& s, const BenchRow& row) {
  const bool prompt = row.what.kind == BenchCase::Kind::prompt;
  const auto ns = times(row);
  std::string line;
  for (const std::string& text : {"steelyard-" + s.version, s.cpu, s.gpu, s.backend, s.file, s.type})
    line += quoted(text) + ',';
  line += fmt::format("{},{},{},{},{},{},", s.bytes, s.parameters, s.batch, s.threads, quoted(s.kv_type),
                      quoted(s.kv_type));
  line += fmt::format("{},{},{},{},{},", prompt ? row.what.tokens : 0, prompt ? 0 : row.what.tokens,
                      row.what.depth, row.what.streams, quoted(s.time));
  return line + fmt::format("{:.0f},{:.0f},{:.6f},{:.6f}\n", mean(ns), deviation(ns), mean(row.rates),
                            deviation(row.rates));
}

std::string bench_markdown_head() {
  return "| model | size | params | backend | threads | test | t/s |\n"
         "| --- | ---: | ---: | --- | ---: | ---: | ---: |\n";
}

std::string bench_markdown(const BenchSubject& s, const BenchRow& row) {
  return fmt::format("| {} | {:.2f} GiB | {:.2f} B | {} | {} | {} | {:.2f} ± {:.2f} |\n", cell(s.type),
                     static_cast<double>(s.bytes) / (1 << 30), static_cast<double>(s.parameters) / 1e9,
                     cell(s.backend), s.threads, test_name(row.what), mean(row.rates), deviation(row.rates));
}

std::vector<BenchBefore> read_bench(const std::string& text, const std::string& file) {
  try {
    std::vector<BenchBefore> rows;
    const auto json = nlohmann::json::parse(text);
    for (const auto& r : json.at("results"))
      rows.push_back({r.at("test").get<std::string>(), r.at("device").get<std::string>(),
                      r.at("tokens_per_second").get<double>(), r.at("slowest").get<double>(),
                      r.at("fastest").get<double>()});
    if (rows.empty()) throw std::runtime_error("it has no results");
    return rows;
  } catch (const std::exception& e) {
    throw_error(ErrorKind::bad_input, "{} isn't what `steelyard bench --json` prints: {}", file, e.what());
  }
}

std::optional<BenchChange> change_since(const std::vector<BenchBefore>& before, const BenchRow& row) {
  const auto same = std::ranges::find_if(
      before, [&](const BenchBefore& b) { return b.test == row.what.name() && b.device == row.device; });
  if (same == before.end() || same->median <= 0 || row.rates.empty()) return std::nullopt;
  return BenchChange{.before = same->median,
                     .change = median(row.rates) / same->median - 1,
                     .sure = row.rates.front() > same->fastest || row.rates.back() < same->slowest};
}

std::string change_text(const std::optional<BenchChange>& c) {
  if (!c) return "  not in that file";
  return fmt::format("  {:+.1f} % ({:.1f} before{})", 100 * c->change, c->before,
                     c->sure ? "" : "; within the spread");
}

nlohmann::ordered_json change_json(const std::optional<BenchChange>& c) {
  if (!c) return nullptr;
  return {{"before", c->before}, {"change", c->change}, {"beyond_spread", c->sure}};
}

}  // namespace steelyard
