// One request inside the engine: its tokens, its pages and how far it has come. Owned by the engine's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "device/step.h"
#include "engine/page_pool.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace steelyard {

struct SequencePages {
  std::vector<std::int32_t> table;  // entry p: positions p·page_tokens …; -1 where a window has passed
  std::uint32_t first = 0;          // entries before it are -1
};

struct Sequence {
  enum class Phase : std::uint8_t { waiting, active, finished };

  std::uint64_t order = 0;  // of arrival; older requests come first
  Phase phase = Phase::waiting;
  std::vector<TokenId> tokens;  // the prompt, then what was generated
  std::uint32_t prompt_tokens = 0;
  std::uint32_t max_tokens = 0;  // it is finished when tokens.size() reaches this
  SamplingParams sampling;
  Want want = Want::sample;  // of the last token fed; other than a sample: the results must reach the host
  bool every_row = false;    // of every token fed, so that no prefix is reused

  std::uint32_t slot = 0;
  std::uint32_t epoch = 0;      // counts admissions: results of an earlier one say nothing about the pages
  std::uint32_t computed = 0;   // tokens whose state exists or is being computed
  std::uint32_t confirmed = 0;  // … whose step has ended
  std::uint32_t published = 0;  // pages published in the pools
  std::uint32_t ahead = 0;      // samples of steps in flight: the tokens after tokens.back()
  std::uint32_t planned_rows = 0;
  PrefixKey key;                     // after the published pages
  std::vector<SequencePages> pages;  // by group

  std::uint32_t cached_tokens = 0;  // reused at the first admission
  std::uint32_t preemptions = 0;

  // Known tokens and those in flight.
  std::uint32_t length() const { return static_cast<std::uint32_t>(tokens.size()) + ahead; }
  // Tokens that may be fed to the next step; the last one allowed is never fed.
  std::uint32_t to_feed() const { return length() < max_tokens ? length() - computed : 0; }
  bool decoding() const { return computed >= prompt_tokens && to_feed() == 1; }
};

}  // namespace steelyard
