#include "device/step.h"

#include <algorithm>

#include "base/error.h"
#include "device/target.h"
#include "program/program.h"

namespace steelyard {
namespace {

template <typename... Args>
void require(bool ok, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) throw_error(ErrorKind::bad_input, format, std::forward<Args>(args)...);
}

class BlockCheck {
 public:
  BlockCheck(const StepBlock& block, const Program& program, const StepLimits& limits,
             std::uint32_t page_tokens, std::span<const std::uint32_t> pages, const TakenSteps& taken)
      : b_(block),
        program_(program),
        limits_(limits),
        page_tokens_(page_tokens),
        pages_(pages),
        taken_(taken) {}

  void run() const {
    sizes();
    std::uint32_t row = 0;
    for (std::uint32_t i = 0; i < b_.sequences.size(); ++i) {
      place(i, row);
      rows(i);
      pages(i);
      row += b_.sequences[i].n_rows;
    }
    require(row == b_.tokens.size(), "the step has rows without a sequence");
    outputs();
  }

 private:
  void sizes() const {
    require(b_.number >= taken_.next_number(), "step {} is given after step {}", b_.number,
            taken_.next_number() - 1);
    require(!b_.tokens.empty(), "the step has no tokens");
    require(b_.tokens.size() <= limits_.rows && b_.sequences.size() <= limits_.slots,
            "a step holds {} sequences and {} tokens at most", limits_.slots, limits_.rows);
    require(b_.outputs.size() <= limits_.outputs, "a step may want {} outputs at most", limits_.outputs);
    require(b_.positions.size() == b_.tokens.size() && b_.row_sequence.size() == b_.tokens.size(),
            "the step has arrays of different lengths");
    require(
        b_.pages_per_sequence <= most_pages(limits_, page_tokens_) &&
            b_.block_tables.size() == b_.sequences.size() * program_.groups.size() * b_.pages_per_sequence,
        "the step has block tables of the wrong size");
  }

  // The sequence begins at `row`, where the one before it ended.
  void place(std::uint32_t i, std::uint32_t row) const {
    const StepSequence& s = b_.sequences[i];
    require(s.slot < limits_.slots, "the step names slot {}, but there are {}", s.slot, limits_.slots);
    for (std::uint32_t other = 0; other < i; ++other)
      require(b_.sequences[other].slot != s.slot, "the step has two sequences in slot {}", s.slot);
    require(s.first_row == row && s.n_rows > 0 && s.n_rows <= b_.tokens.size() - row,
            "the step has a sequence out of place");
    require(s.first_position >= 0 && std::uint64_t(s.first_position) + s.n_rows <= limits_.context,
            "a sequence may have {} tokens at most (--context)", limits_.context);
  }

  void rows(std::uint32_t i) const {
    const StepSequence& s = b_.sequences[i];
    for (std::uint32_t r = 0; r < s.n_rows; ++r) {
      const std::uint32_t row = s.first_row + r;
      require(
          b_.row_sequence[row] == i && b_.positions[row] == s.first_position + static_cast<std::int32_t>(r),
          "the step has rows that aren't their sequence's");
      const std::int32_t token = b_.tokens[row];
      if (token == kLastSample) {
        require(r == 0, "only the first row of a sequence can go on from the last sample");
        require(taken_.has_sample(s.slot), "slot {} has no last sample to go on from", s.slot);
      } else {
        require(token >= 0 && static_cast<std::uint32_t>(token) < program_.vocab_size,
                "the step holds token {}, but the vocabulary ends at {}", token, program_.vocab_size - 1);
      }
    }
  }

  // Pages that the rows can see or write must exist; behind a window they may be gone.
  void pages(std::uint32_t i) const {
    const StepSequence& s = b_.sequences[i];
    const auto position = static_cast<std::uint32_t>(s.first_position);
    const std::uint32_t last = (position + s.n_rows - 1) / page_tokens_;
    for (std::size_t g = 0; g < program_.groups.size(); ++g) {
      const std::uint32_t window = program_.groups[g].window;
      const std::uint32_t first = window && position >= window ? (position - window + 1) / page_tokens_ : 0;
      const auto* table = b_.block_tables.data() + (g * b_.sequences.size() + i) * b_.pages_per_sequence;
      for (std::uint32_t p = first; p <= last; ++p)
        require(
            p < b_.pages_per_sequence && table[p] >= 0 && static_cast<std::uint32_t>(table[p]) < pages_[g],
            "the step lacks page {} of slot {} in group {}", p, s.slot, program_.groups[g].name);
    }
  }

  void outputs() const {
    for (std::size_t i = 0; i < b_.outputs.size(); ++i) {
      const StepOutput& o = b_.outputs[i];
      require(o.row < b_.tokens.size() && b_.row_sequence[o.row] == o.sequence,
              "the step wants an unknown row");
      require(i == 0 || b_.outputs[i - 1].row < o.row, "the step's outputs don't ascend");
    }
  }

  const StepBlock& b_;
  const Program& program_;
  const StepLimits& limits_;
  std::uint32_t page_tokens_;
  std::span<const std::uint32_t> pages_;
  const TakenSteps& taken_;
};

}  // namespace

std::uint32_t most_pages(const StepLimits& limits, std::uint32_t page_tokens) {
  return (limits.context + page_tokens - 1) / page_tokens + 1;
}

void TakenSteps::take(const StepBlock& block) {
  next_number_ = block.number + 1;
  for (const StepOutput& o : block.outputs)
    if (has(o.want, Want::sample)) sampled_by_[block.sequences[o.sequence].slot] = next_number_;
}

void TakenSteps::reset_slot(std::uint32_t slot) {
  if (slot < sampled_by_.size()) sampled_by_[slot] = 0;
}

std::uint64_t TakenSteps::samples_needed(const StepBlock& block) const {
  std::uint64_t most = 0;
  for (const StepSequence& s : block.sequences)
    if (block.tokens[s.first_row] == kLastSample) most = std::max(most, sampled_by_[s.slot]);
  return most;
}

void check_block(const StepBlock& block, const Program& program, const StepLimits& limits,
                 std::uint32_t page_tokens, std::span<const std::uint32_t> pages, const TakenSteps& taken) {
  BlockCheck(block, program, limits, page_tokens, pages, taken).run();
}

}  // namespace steelyard
