// What one row of `steelyard bench` measures, and how its name is written.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace steelyard {

// "pp512": 512 prompt tokens of one sequence. "tg128": 128 tokens generated one after the other. "@2048"
// after it: with 2048 tokens in the state already. " x8": of eight sequences at once.
struct BenchCase {
  enum class Kind : std::uint8_t { prompt, generate };
  Kind kind = Kind::prompt;
  std::uint32_t tokens = 0;   // of each sequence
  std::uint32_t depth = 0;    // before the first of them
  std::uint32_t streams = 1;  // sequences at once

  std::string name() const;
  std::uint32_t context() const { return depth + tokens; }
  bool operator==(const BenchCase&) const = default;
};

// One name, with or without a space before the x. Throws Error(bad_input).
BenchCase parse_bench_case(std::string_view name);
// Names separated by commas.
std::vector<BenchCase> parse_bench_cases(std::string_view names);
// What is measured unless the caller chooses.
std::vector<BenchCase> default_bench_cases(bool gpu);

}  // namespace steelyard
