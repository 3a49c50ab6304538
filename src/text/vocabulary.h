// A model's vocabulary as its file declares it: token texts, types, scores, merges and special ids. Immutable
// after construction and safe to share between threads. Source of the keys: the GGUF definition,
// "tokenizer.ggml.*".
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/keyed_hash.h"

namespace steelyard {

class GgufMetadata;

using TokenId = std::int32_t;
inline constexpr TokenId kNoToken = -1;

enum class VocabularyKind { none, spm, bpe, character_bpe };

// Values as stored in tokenizer.ggml.token_type.
enum class TokenType : std::uint8_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6,
};

// The keys of a file, unchecked. An absent key is an empty container or nullopt.
struct VocabularyParts {
  std::string model = "none";  // tokenizer.ggml.model: "llama" (SPM), "gpt2" (BPE), "gemma4", "none"
  std::string pre;             // tokenizer.ggml.pre: name of the pre-tokenizer (BPE only)
  std::vector<std::string_view> tokens;
  std::vector<float> scores;
  std::vector<std::int32_t> types;
  std::vector<std::string_view> merges;                                         // "left right", best first
  std::optional<std::int64_t> bos, eos, eot, eom, unknown, padding, separator;  // −1: the file says "none"
  std::optional<bool> add_bos, add_eos, add_space_prefix, ignore_merges;
  bool strip_after_special = false;  // Phi-3 files: white space after a parsed control token belongs to it
  std::string chat_template;
};

// A rule "left right → merged"; its rank is its place in the list, smaller first.
struct Merge {
  TokenId left, right, merged;
};

class Vocabulary {
 public:
  // Copies what it keeps; `parts` may view a mapped file that is closed later.
  // Throws Error: bad_input when counts, types or ids don't fit together, unsupported for an unknown
  // tokenizer model or pre-tokenizer, named in the message.
  explicit Vocabulary(const VocabularyParts& parts);
  static Vocabulary from_metadata(const GgufMetadata& metadata);

  VocabularyKind kind() const { return kind_; }
  int size() const { return static_cast<int>(ends_.size()); }
  // Text of a token as stored in the file (BPE: byte-level letters, SPM: ▁ for a space); `id` in [0, size()).
  std::string_view text(TokenId id) const;
  TokenType type(TokenId id) const { return types_[id]; }
  float score(TokenId id) const { return scores_.empty() ? 0.0f : scores_[id]; }
  // Id of exactly this stored text, or kNoToken.
  TokenId find(std::string_view text) const;
  // SPM and character BPE: the token that stands for one raw byte, or kNoToken.
  TokenId byte_token(std::uint8_t byte) const { return byte_tokens_[byte]; }
  const std::vector<Merge>& merges() const { return merges_; }

  // Name of the pre-tokenizer in use; `pre_missing()` when the file has none and "default" stands in for it,
  // which deserves a warning: the ids may differ from those the model was trained with.
  const std::string& pre() const { return pre_; }
  bool pre_missing() const { return pre_missing_; }

  TokenId bos() const { return bos_; }
  TokenId eos() const { return eos_; }
  TokenId unknown() const { return unknown_; }
  TokenId padding() const { return padding_; }
  bool add_bos() const { return add_bos_; }
  bool add_eos() const { return add_eos_; }
  bool add_space_prefix() const { return add_space_prefix_; }
  bool ignore_merges() const { return ignore_merges_; }
  bool strip_after_special() const { return strip_after_special_; }

  // An answer ends on any of these: eos, eot, eom of the file and the tokens known by text (<|im_end|>, …).
  bool is_end(TokenId id) const;
  const std::vector<TokenId>& end_tokens() const { return end_tokens_; }  // ascending

  // What is odd in the file and does no harm, each in a sentence: ids beyond the end that no encoding needs.
  const std::vector<std::string>& notes() const { return notes_; }

  // tokenizer.chat_template, empty when the file has none.
  const std::string& chat_template() const { return chat_template_; }

 private:
  void store_tokens(const VocabularyParts& parts);
  void store_types(const VocabularyParts& parts);
  void store_byte_tokens();
  void build_index();
  void store_merges(const VocabularyParts& parts);
  void store_special(const VocabularyParts& parts);
  void find_end_tokens(const VocabularyParts& parts);
  bool is_out_of_range(const std::optional<std::int64_t>& id) const;
  TokenId checked_id(const std::optional<std::int64_t>& id, TokenId fallback, const char* key) const;
  // For ids that no encoding needs: a note and kNoToken instead of an error.
  TokenId id_or_note(const std::optional<std::int64_t>& id, TokenId fallback, const char* key);

  VocabularyKind kind_ = VocabularyKind::none;
  std::string arena_;                // all texts, one after the other
  std::vector<std::uint32_t> ends_;  // text i is arena_[ends_[i-1] .. ends_[i])
  std::vector<TokenType> types_;
  std::vector<float> scores_;
  std::vector<Merge> merges_;
  KeyedHash hash_;
  std::vector<TokenId> slots_;  // text → id, open addressing, a power of two of them
  std::array<TokenId, 256> byte_tokens_{};
  std::vector<TokenId> end_tokens_;
  std::vector<std::string> notes_;
  std::string pre_, chat_template_;
  bool pre_missing_ = false;
  TokenId bos_ = kNoToken, eos_ = kNoToken, unknown_ = kNoToken, padding_ = kNoToken;
  bool add_bos_ = false, add_eos_ = false, add_space_prefix_ = false, ignore_merges_ = false;
  bool strip_after_special_ = false;
};

}  // namespace steelyard
