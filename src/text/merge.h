// Merging engines of the two vocabulary kinds. Internal to text/: use tokenizer.h.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/keyed_hash.h"
#include "text/pretokenizer.h"
#include "text/vocabulary.h"

namespace steelyard {

// A run of bytes during merging, in a doubly linked list over a vector.
struct MergeSymbol {
  std::uint32_t begin, length;  // bytes of the text; length 0 = merged away
  std::int32_t previous, next;  // indices, -1 at the ends
  TokenId id;                   // kNoToken when the run is no token
};

// A possible merge of a symbol with the one after it; the smallest `order` goes first.
struct MergeCandidate {
  std::uint64_t order;   // priority << 32 | index of the left symbol
  std::uint32_t length;  // of both together; tells whether the candidate is stale
  TokenId merged;
  bool operator>(const MergeCandidate& other) const { return order > other.order; }
};

// Where words already encoded in this call stand in the output: most words of a text repeat.
class WordCache {
 public:
  explicit WordCache(std::size_t text_bytes);
  // Appends the ids of an equal earlier word to `out` and returns true, or remembers nothing and returns
  // false.
  bool copy(std::string_view word, std::vector<TokenId>& out) const;
  void remember(std::string_view word, std::size_t begin, std::size_t end);

 private:
  struct Entry {
    std::string_view word;
    std::uint32_t begin = 0, end = 0;
  };
  std::size_t slot(std::string_view word) const;
  std::vector<Entry> entries_;
};

struct MergeScratch {
  std::vector<MergeSymbol> symbols;
  std::vector<MergeCandidate> heap;
};

// Ranked merge rules: pair of tokens → token.
class MergeTable {
 public:
  explicit MergeTable(const std::vector<Merge>& merges);
  // The rule's rank and result; {0, kNoToken} when there is none.
  std::pair<std::uint32_t, TokenId> find(TokenId left, TokenId right) const;

 private:
  struct Slot {
    std::uint64_t key = 0;  // (left << 32 | right) + 1, 0 = free
    std::uint32_t rank = 0;
    TokenId merged = kNoToken;
  };
  KeyedHash hash_;
  std::vector<Slot> slots_;  // open addressing, a power of two of them
};

// Byte-level BPE: pre-tokenizer, one letter per byte, merges by rank.
class BpeEncoder {
 public:
  explicit BpeEncoder(const Vocabulary& vocabulary);
  // `vocabulary` must be the one given to the constructor.
  void encode(const Vocabulary& vocabulary, std::string_view text, std::vector<TokenId>& out) const;

 private:
  void encode_word(const Vocabulary& vocabulary, std::string_view word, MergeScratch& scratch,
                   std::vector<TokenId>& out) const;
  TokenId whole_word(const Vocabulary& vocabulary, std::string_view word) const;

  Pretokenizer pretokenizer_;
  MergeTable merges_;
  TokenId byte_ids_[256];
};

// SentencePiece BPE: merges by score over characters, ▁ for spaces, byte tokens for unknown characters.
class SpmEncoder {
 public:
  explicit SpmEncoder(const Vocabulary& vocabulary);
  void encode(const Vocabulary& vocabulary, std::string_view text, bool space_prefix,
              std::vector<TokenId>& out) const;

 private:
  TokenId find(const Vocabulary& vocabulary, std::string_view text) const;
  std::size_t word_end(std::string_view text, std::size_t begin) const;
  void encode_word(const Vocabulary& vocabulary, std::string_view word, MergeScratch& scratch,
                   std::vector<TokenId>& out) const;

  std::size_t longest_ = 0;  // bytes of the longest token that merging can make
  bool has_unused_ = false;
  // Characters that stand before ▁ inside some token. Between any other character and ▁ no merge can happen,
  // so the text is cut there into words.
  std::vector<bool> before_space_;  // by code point
};

// BPE over characters (Gemma 4): ▁ for spaces, words cut at line ends, merges by rank, byte tokens for
// unknown characters.
class CharacterBpeEncoder {
 public:
  explicit CharacterBpeEncoder(const Vocabulary& vocabulary) : merges_(vocabulary.merges()) {}
  void encode(const Vocabulary& vocabulary, std::string_view text, std::vector<TokenId>& out) const;

 private:
  void encode_word(const Vocabulary& vocabulary, std::string_view word, MergeScratch& scratch,
                   std::vector<TokenId>& out) const;
  MergeTable merges_;
};

// Letters of byte-level vocabularies: printable bytes stand for themselves, the others for U+0100 onward
// (the byte-to-letter table of GPT-2).
std::uint32_t byte_letter(std::uint8_t byte);
// The byte of a letter, or -1.
int letter_byte(std::uint32_t code);

}  // namespace steelyard
