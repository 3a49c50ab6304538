// Pre-tokenizers of BPE vocabularies: regular expressions that cut text into words before merging. Which one
// a model was trained with is known by the name in tokenizer.ggml.pre; the expressions are those its
// publisher ships in tokenizer.json.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace steelyard {

struct PretokenizerPattern {
  // What becomes a piece: a match; each thousand of a match that is a run of digits, counted from the right,
  // or the same without the match's own ends. (A lookahead to the end of the run would take quadratic time.)
  enum class Cut : std::uint8_t { match, thousands, between_thousands };
  constexpr PretokenizerPattern(const char* e, Cut c = Cut::match) : expression(e), cut(c) {}
  const char* expression;
  Cut cut;
};

struct PretokenizerSpec {
  std::vector<PretokenizerPattern>
      patterns;                // applied one after the other, each to what the ones before left
                               // unmatched or matched: every match and every gap becomes a piece
  bool add_bos = false;        // when the file doesn't say
  bool ignore_merges = false;  // a word that is a token is taken whole
};

// nullptr for an unknown name.
const PretokenizerSpec* find_pretokenizer(std::string_view name);

// Compiled patterns. Immutable, thread-safe.
class Pretokenizer {
 public:
  explicit Pretokenizer(const PretokenizerSpec& spec);
  ~Pretokenizer();
  // Appends the ends (byte offsets) of the pieces of `text`; the last is text.size(). Any bytes: what isn't
  // UTF-8 becomes pieces of its own. Throws Error(bad_input) when a pattern runs out of its match limit.
  void split(std::string_view text, std::vector<std::size_t>& ends) const;

 private:
  struct Pattern;
  static void split_piece(const Pattern& pattern, std::string_view piece, std::size_t offset,
                          void* match_data, std::vector<std::size_t>& ends);
  std::vector<std::unique_ptr<const Pattern>> patterns_;
};

}  // namespace steelyard
