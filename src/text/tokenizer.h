// Text ↔ token ids, by the vocabulary's own algorithm (SPM: score-driven merges with byte fallback; BPE:
// pre-tokenizer regex, byte-level letters, ranked merges). Immutable after construction; every method may be
// called from many threads at once.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace steelyard {

struct EncodeOptions {
  bool add_special = true;     // BOS and EOS where the file asks for them
  bool parse_special = false;  // control tokens written out in the text ("<|im_end|>") become those tokens
  // With parse_special: a character that breaks spelt-out control tokens which are to stay text
  // ("<" mark "|im_end|>"). It is left out of what is encoded. Empty: none does.
  std::string_view mark = {};
};

class Tokenizer {
 public:
  explicit Tokenizer(Vocabulary vocabulary);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Any bytes are accepted; bytes that aren't UTF-8 are encoded as themselves where the vocabulary can.
  // Throws Error(unsupported) when the file has no vocabulary.
  std::vector<TokenId> encode(std::string_view text, EncodeOptions options = {}) const;

  // Bytes of the longest control token that `text` begins with; 0: none.
  std::size_t control_token_at(std::string_view text) const;

  // The bytes a token stands for; a single token may hold part of a UTF-8 character (stream.h puts them
  // together). Control tokens are empty unless `special`. Ids out of range are empty.
  std::string_view piece(TokenId id, bool special = false) const;
  // All pieces joined. For SPM with a space prefix the first space that encode() added is dropped.
  std::string decode(const std::vector<TokenId>& tokens, bool special = false) const;

  // Bytes of the longest token's text: none stands for more.
  std::size_t longest_token() const;

  const Vocabulary& vocabulary() const;
  bool is_end(TokenId id) const { return vocabulary().is_end(id); }
  TokenId bos() const { return vocabulary().bos(); }
  TokenId eos() const { return vocabulary().eos(); }
  int size() const { return vocabulary().size(); }

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace steelyard
