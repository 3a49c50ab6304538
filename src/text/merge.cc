#include "text/merge.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"

namespace steelyard {

namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";  // ▁
constexpr std::uint32_t kSpaceCode = 0x2581;

// Runs all merges over scratch.symbols. `rule(left, right)` gives {priority, token}; token kNoToken = no
// merge; `merged(symbol, left length)` is told of each merge done. O(n log n).
template <typename Rule, typename Merged>
void merge_all(MergeScratch& scratch, const Rule& rule, const Merged& merged) {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  heap.clear();
  auto candidate = [&](std::int32_t left) {
    std::int32_t right = symbols[left].next;
    if (right < 0) return false;
    auto [priority, token] = rule(symbols[left], symbols[right]);
    if (token == kNoToken) return false;
    heap.push_back({static_cast<std::uint64_t>(priority) << 32 | static_cast<std::uint32_t>(left),
                    symbols[left].length + symbols[right].length, token});
    return true;
  };
  for (std::int32_t i = 0; i + 1 < static_cast<std::int32_t>(symbols.size()); ++i) candidate(i);
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    MergeCandidate best = heap.back();
    heap.pop_back();
    std::int32_t index = static_cast<std::int32_t>(best.order & 0xFFFFFFFFu);
    MergeSymbol& left = symbols[index];
    if (left.length == 0 || left.next < 0 || left.length + symbols[left.next].length != best.length) continue;
    MergeSymbol& right = symbols[left.next];
    merged(left, right, best.merged);
    left.length = best.length;
    left.id = best.merged;
    left.next = right.next;
    if (right.next >= 0) symbols[right.next].previous = index;
    right.length = 0;
    if (left.previous >= 0 && candidate(left.previous))
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    if (candidate(index)) std::push_heap(heap.begin(), heap.end(), std::greater<>());
  }
}

// Control, unknown and byte tokens never come out of text.
bool comes_from_text(TokenType type) {
  return type == TokenType::normal || type == TokenType::user_defined || type == TokenType::unused;
}

std::string with_underlines(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  for (char c : text) {
    if (c == ' ') {
      out += kSpace;
    } else {
      out += c;
    }
  }
  return out;
}

// A run that is a token, or the byte tokens of one that isn't.
void emit(const Vocabulary& vocabulary, std::string_view run, TokenId id, std::vector<TokenId>& out) {
  if (id != kNoToken) return out.push_back(id);
  bool all_bytes = std::all_of(run.begin(), run.end(), [&](char c) {
    return vocabulary.byte_token(static_cast<std::uint8_t>(c)) != kNoToken;
  });
  if (!all_bytes) {
    if (vocabulary.unknown() != kNoToken) out.push_back(vocabulary.unknown());
    return;
  }
  for (char c : run) out.push_back(vocabulary.byte_token(static_cast<std::uint8_t>(c)));
}

void check_length(std::string_view text) {
  if (text.size() > UINT32_MAX / 4)
    throw_error(ErrorKind::bad_input, "a text of {} bytes is too long", text.size());
}

// Larger scores first, as an integer whose order is that of the negated float.
std::uint32_t score_priority(float score) {
  std::uint32_t bits = std::bit_cast<std::uint32_t>(-score);
  if (-score == 0.0f) bits = 0;
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

}  // namespace

std::uint32_t byte_letter(std::uint8_t byte) {
  if ((byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD)) return byte;
  if (byte <= 0x20) return 0x100 + byte;
  if (byte <= 0xA0) return 0x121 + (byte - 0x7F);
  return 0x143;  // 0xAD
}

int letter_byte(std::uint32_t code) {
  static const auto table = [] {
    std::array<std::int16_t, 0x144> bytes;
    bytes.fill(-1);
    for (int byte = 0; byte < 256; ++byte)
      bytes[byte_letter(static_cast<std::uint8_t>(byte))] = static_cast<std::int16_t>(byte);
    return bytes;
  }();
  return code < table.size() ? table[code] : -1;
}

WordCache::WordCache(std::size_t text_bytes)
    : entries_(std::clamp<std::size_t>(std::bit_ceil(text_bytes / 4 + 1), 8, 8192)) {}

std::size_t WordCache::slot(std::string_view word) const {
  return std::hash<std::string_view>()(word) & (entries_.size() - 1);
}

bool WordCache::copy(std::string_view word, std::vector<TokenId>& out) const {
  const Entry& entry = entries_[slot(word)];
  if (entry.end == entry.begin || entry.word != word) return false;
  for (std::uint32_t i = entry.begin; i < entry.end; ++i) out.push_back(out[i]);
  return true;
}

void WordCache::remember(std::string_view word, std::size_t begin, std::size_t end) {
  entries_[slot(word)] = {word, static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end)};
}

BpeEncoder::BpeEncoder(const Vocabulary& vocabulary)
    : pretokenizer_(*find_pretokenizer(vocabulary.pre())), merges_(vocabulary.merges()) {
  std::string letter;
  for (int byte = 0; byte < 256; ++byte) {
    letter.clear();
    append_utf8(letter, byte_letter(static_cast<std::uint8_t>(byte)));
    byte_ids_[byte] = vocabulary.find(letter);
  }
}

MergeTable::MergeTable(const std::vector<Merge>& merges) : slots_(std::bit_ceil(merges.size() * 2 + 2)) {
  std::size_t mask = slots_.size() - 1;
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const Merge& merge = merges[rank];
    if (merge.left == kNoToken || merge.right == kNoToken || merge.merged == kNoToken) continue;
    std::uint64_t key =
        (static_cast<std::uint64_t>(merge.left) << 32 | static_cast<std::uint32_t>(merge.right)) + 1;
    std::size_t at = hash_(key) & mask;
    while (slots_[at].key != 0 && slots_[at].key != key) at = (at + 1) & mask;
    if (slots_[at].key == 0) slots_[at] = {key, static_cast<std::uint32_t>(rank), merge.merged};
  }
}

std::pair<std::uint32_t, TokenId> MergeTable::find(TokenId left, TokenId right) const {
  if (left == kNoToken || right == kNoToken) return {0, kNoToken};
  std::uint64_t key = (static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right)) + 1;
  std::size_t mask = slots_.size() - 1;
  for (std::size_t at = hash_(key) & mask; slots_[at].key != 0; at = (at + 1) & mask)
    if (slots_[at].key == key) return {slots_[at].rank, slots_[at].merged};
  return {0, kNoToken};
}

void BpeEncoder::encode(const Vocabulary& vocabulary, std::string_view text,
                        std::vector<TokenId>& out) const {
  check_length(text);
  std::vector<std::size_t> ends;
  pretokenizer_.split(text, ends);
  WordCache cache(text.size());
  MergeScratch scratch;
  std::size_t begin = 0;
  for (std::size_t end : ends) {
    std::string_view word = text.substr(begin, end - begin);
    begin = end;
    std::size_t first = out.size();
    if (cache.copy(word, out)) continue;
    encode_word(vocabulary, word, scratch, out);
    cache.remember(word, first, out.size());
  }
}

TokenId BpeEncoder::whole_word(const Vocabulary& vocabulary, std::string_view word) const {
  std::string letters;
  for (char c : word) append_utf8(letters, byte_letter(static_cast<std::uint8_t>(c)));
  TokenId id = vocabulary.find(letters);
  bool plain = id != kNoToken && vocabulary.type(id) != TokenType::control &&
               vocabulary.type(id) != TokenType::unknown;
  return plain ? id : kNoToken;
}

void BpeEncoder::encode_word(const Vocabulary& vocabulary, std::string_view word, MergeScratch& scratch,
                             std::vector<TokenId>& out) const {
  if (vocabulary.ignore_merges()) {
    TokenId whole = whole_word(vocabulary, word);
    if (whole != kNoToken) return out.push_back(whole);
  }
  auto& symbols = scratch.symbols;
  symbols.clear();
  std::int32_t n = static_cast<std::int32_t>(word.size());
  for (std::int32_t i = 0; i < n; ++i)
    symbols.push_back({static_cast<std::uint32_t>(i), 1, i - 1, i + 1 < n ? i + 1 : -1,
                       byte_ids_[static_cast<std::uint8_t>(word[i])]});
  auto rule = [&](const MergeSymbol& left, const MergeSymbol& right) {
    return merges_.find(left.id, right.id);
  };
  merge_all(scratch, rule, [](const MergeSymbol&, const MergeSymbol&, TokenId) {});
  for (std::int32_t i = 0; i >= 0; i = symbols[i].next) {
    if (symbols[i].id != kNoToken) out.push_back(symbols[i].id);  // a byte without a letter has no token
  }
}

SpmEncoder::SpmEncoder(const Vocabulary& vocabulary) : before_space_(0x110000) {
  for (TokenId id = 0; id < vocabulary.size(); ++id) {
    TokenType type = vocabulary.type(id);
    if (!comes_from_text(type)) continue;
    has_unused_ |= type == TokenType::unused;
    std::string_view text = vocabulary.text(id);
    longest_ = std::max(longest_, text.size());
    std::uint32_t before = kSpaceCode;
    for (std::size_t at = 0; at < text.size();) {
      Utf8Char c = decode_utf8(text.substr(at));
      if (c.code == kSpaceCode && before != kSpaceCode) before_space_[before] = true;
      before = c.code;  // U+FFFD for anything invalid
      at += c.length;
    }
  }
}

TokenId SpmEncoder::find(const Vocabulary& vocabulary, std::string_view text) const {
  if (text.size() > longest_) return kNoToken;
  TokenId id = vocabulary.find(text);
  return id != kNoToken && comes_from_text(vocabulary.type(id)) ? id : kNoToken;
}

std::size_t SpmEncoder::word_end(std::string_view text, std::size_t begin) const {
  std::uint32_t before = kSpaceCode;
  std::size_t at = begin;
  while (at < text.size()) {
    Utf8Char c = decode_utf8(text.substr(at));
    if (c.code == kSpaceCode && before != kSpaceCode && !before_space_[before]) return at;
    before = c.code;
    at += c.length;
  }
  return at;
}

void SpmEncoder::encode(const Vocabulary& vocabulary, std::string_view text, bool space_prefix,
                        std::vector<TokenId>& out) const {
  check_length(text);
  std::string escaped = (space_prefix ? std::string(kSpace) : std::string()) + with_underlines(text);
  WordCache cache(escaped.size());
  MergeScratch scratch;
  std::string_view all = escaped;
  for (std::size_t begin = 0; begin < all.size();) {
    std::size_t end = word_end(all, begin);
    std::string_view word = all.substr(begin, end - begin);
    begin = end;
    std::size_t first = out.size();
    if (cache.copy(word, out)) continue;
    encode_word(vocabulary, word, scratch, out);
    cache.remember(word, first, out.size());
  }
}

void SpmEncoder::encode_word(const Vocabulary& vocabulary, std::string_view word, MergeScratch& scratch,
                             std::vector<TokenId>& out) const {
  auto& symbols = scratch.symbols;
  symbols.clear();
  for (std::size_t at = 0; at < word.size();) {
    std::uint32_t length = decode_utf8(word.substr(at)).length;
    std::int32_t i = static_cast<std::int32_t>(symbols.size());
    symbols.push_back(
        {static_cast<std::uint32_t>(at), length, i - 1, i + 1, find(vocabulary, word.substr(at, length))});
    at += length;
  }
  symbols.back().next = -1;
  auto rule = [&](const MergeSymbol& left, const MergeSymbol& right) {
    TokenId id = find(vocabulary, word.substr(left.begin, left.length + right.length));
    return std::pair(id == kNoToken ? 0u : score_priority(vocabulary.score(id)), id);
  };
  // Pieces marked unused may be passed through, but not come out: they are taken apart again as they were
  // made.
  std::unordered_map<std::string_view, std::uint32_t, KeyedHash> unused;  // run → its left part
  auto merged = [&](const MergeSymbol& left, const MergeSymbol& right, TokenId id) {
    if (has_unused_ && vocabulary.type(id) == TokenType::unused)
      unused.emplace(word.substr(left.begin, left.length + right.length), left.length);
  };
  merge_all(scratch, rule, merged);
  std::vector<std::string_view> runs;
  for (std::int32_t i = 0; i >= 0; i = symbols[i].next) {
    runs.assign(1, word.substr(symbols[i].begin, symbols[i].length));
    while (!runs.empty()) {
      std::string_view run = runs.back();
      runs.pop_back();
      TokenId id = find(vocabulary, run);
      auto made = unused.end();
      if (id != kNoToken && vocabulary.type(id) == TokenType::unused) made = unused.find(run);
      if (made == unused.end()) {
        emit(vocabulary, run, id, out);
      } else {
        runs.push_back(run.substr(made->second));
        runs.push_back(run.substr(0, made->second));
      }
    }
  }
}

void CharacterBpeEncoder::encode(const Vocabulary& vocabulary, std::string_view text,
                                 std::vector<TokenId>& out) const {
  check_length(text);
  std::string escaped = with_underlines(text);
  WordCache cache(escaped.size());
  MergeScratch scratch;
  std::string_view all = escaped;
  for (std::size_t begin = 0; begin < all.size();) {
    std::size_t end = all[begin] == '\n' ? all.find_first_not_of('\n', begin) : all.find('\n', begin);
    std::string_view word = all.substr(begin, std::min(end, all.size()) - begin);
    begin += word.size();
    std::size_t first = out.size();
    if (cache.copy(word, out)) continue;
    encode_word(vocabulary, word, scratch, out);
    cache.remember(word, first, out.size());
  }
}

void CharacterBpeEncoder::encode_word(const Vocabulary& vocabulary, std::string_view word,
                                      MergeScratch& scratch, std::vector<TokenId>& out) const {
  auto& symbols = scratch.symbols;
  symbols.clear();
  for (std::size_t at = 0; at < word.size();) {
    std::uint32_t length = decode_utf8(word.substr(at)).length;
    std::int32_t i = static_cast<std::int32_t>(symbols.size());
    TokenId id = vocabulary.find(word.substr(at, length));
    if (id != kNoToken && !comes_from_text(vocabulary.type(id))) id = kNoToken;
    symbols.push_back({static_cast<std::uint32_t>(at), length, i - 1, i + 1, id});
    at += length;
  }
  symbols.back().next = -1;
  auto rule = [&](const MergeSymbol& left, const MergeSymbol& right) {
    return merges_.find(left.id, right.id);
  };
  merge_all(scratch, rule, [](const MergeSymbol&, const MergeSymbol&, TokenId) {});
  for (std::int32_t i = 0; i >= 0; i = symbols[i].next)
    emit(vocabulary, word.substr(symbols[i].begin, symbols[i].length), symbols[i].id, out);
}

}  // namespace steelyard
