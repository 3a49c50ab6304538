// A bench's rows in the shapes that others use: llama-bench's columns as CSV and Markdown, and rows that were
// kept as JSON, to be compared with.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "app/bench_case.h"

namespace steelyard {

struct BenchRow {
  BenchCase what;
  std::string device;         // "CPU", "CUDA0"
  std::vector<double> rates;  // tokens/s of every run, ascending
};

// Of all rows.
struct BenchSubject {
  std::string version, file, type;  // "0.1.0", "llama-8b.gguf", "llama Q4_K_M"
  std::uint64_t bytes = 0, parameters = 0;
  std::string cpu, gpu, backend;  // names; "CUDA" or "CPU"
  std::uint32_t batch = 0, threads = 0;
  std::string kv_type;
  std::string time;  // RFC 3339
};

std::string bench_csv_head();
std::string bench_csv(const BenchSubject& subject, const BenchRow& row);
std::string bench_markdown_head();
std::string bench_markdown(const BenchSubject& subject, const BenchRow& row);

// A row of `bench --json`.
struct BenchBefore {
  std::string test, device;
  double median = 0, slowest = 0, fastest = 0;
};
// Throws Error(bad_input) naming `file` when it isn't what `bench --json` printed.
std::vector<BenchBefore> read_bench(const std::string& text, const std::string& file);

// "+12.3 % (102.0 before)", and whether the runs' spread leaves that open: then neither of them is faster
// than all of the other.
struct BenchChange {
  double before = 0, change = 0;  // tokens/s; 0.123 for 12.3 % faster
  bool sure = false;              // all runs of one were faster than all of the other
};
std::optional<BenchChange> change_since(const std::vector<BenchBefore>& before, const BenchRow& row);
std::string change_text(const std::optional<BenchChange>& change);
nlohmann::ordered_json change_json(const std::optional<BenchChange>& change);

}  // namespace steelyard
