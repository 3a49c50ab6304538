// What Ollama and llama.cpp log when they load and run a model, of any version since 2023, rebuilt as facts.
// Lines that aren't understood are passed over; the last load counts, and the speeds after it. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "doctor/facts.h"

namespace steelyard::doctor {

// As logged; bytes. A buffer's device is as the log names it: "CUDA0", "CPU_Mapped", "CUDA_Host".
struct ForeignLog {
  Engine engine = Engine::llama_cpp;
  std::string model, file_type;
  std::uint32_t layers = 0, offloaded = 0;  // "offloaded 65/65": the output layer counts
  std::uint32_t width = 0, context = 0, context_train = 0, sequences = 1, threads = 0;
  std::uint64_t file_bytes = 0;
  std::string kv_type;
  std::string split;  // "layer", "row", "tensor"; empty: not said
  std::optional<bool> flash_attention;
  double bits_per_weight = 0;
  std::map<std::string, std::uint64_t> weights, kv, compute;
  struct Card {
    std::string name;
    std::uint64_t total = 0, available = 0;
  };
  std::map<std::string, Card> cards;                           // by "CUDA0"
  std::string no_gpu;                                          // the line that says so
  double tokens_per_second = 0, prompt_tokens_per_second = 0;  // medians of those after the last load
  std::uint64_t generated = 0;                                 // tokens that it is a figure of
  std::uint32_t loads = 0, requests = 0, truncated = 0, read_again = 0;
  bool understood() const { return layers > 0 || !weights.empty() || tokens_per_second > 0; }
};

ForeignLog read_log(std::string_view text);

// With the nominal rates of the cards that are known.
Facts facts_of(const ForeignLog& log);

}  // namespace steelyard::doctor
