#include "text/tokenizer.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/error.h"
#include "base/utf8.h"
#include "text/merge.h"

namespace steelyard {

namespace {

std::string spaces_for_underlines(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    if (text.substr(at, 3) == "\xE2\x96\x81") {
      out += ' ';
      at += 3;
    } else {
      out += text[at++];
    }
  }
  return out;
}

std::string without(std::string_view text, std::string_view part) {
  std::string out;
  for (std::size_t at; (at = text.find(part)) != std::string_view::npos; text.remove_prefix(at + part.size()))
    out += text.substr(0, at);
  return out += text;
}

// Finds the longest of a set of texts at a place: a sorted list, narrowed byte by byte.
class TextSet {
 public:
  void add(std::string text, TokenId id) {
    if (!text.empty()) entries_.push_back({std::move(text), id});
  }
  void sort() {
    std::sort(entries_.begin(), entries_.end(), [](const auto& a, const auto& b) { return a.text < b.text; });
    for (const auto& entry : entries_) starts_[static_cast<std::uint8_t>(entry.text[0])] = true;
  }
  bool empty() const { return entries_.empty(); }
  bool may_start(char c) const { return starts_[static_cast<std::uint8_t>(c)]; }

  // The longest entry that `text` begins with: its id and length, or kNoToken.
  std::pair<TokenId, std::size_t> longest_prefix(std::string_view text) const {
    auto low = entries_.begin(), high = entries_.end();
    std::pair<TokenId, std::size_t> best{kNoToken, 0};
    for (std::size_t depth = 0; low != high; ++depth) {
      if (low->text.size() == depth) {
        best = {low->id, depth};
        if (++low == high) break;
      }
      if (depth == text.size()) break;
      std::uint8_t byte = static_cast<std::uint8_t>(text[depth]);
      auto at = [depth](const Entry& e) { return static_cast<std::uint8_t>(e.text[depth]); };
      low = std::partition_point(low, high, [&](const Entry& e) { return at(e) < byte; });
      high = std::partition_point(low, high, [&](const Entry& e) { return at(e) == byte; });
    }
    return best;
  }

 private:
  struct Entry {
    std::string text;
    TokenId id;
  };
  std::vector<Entry> entries_;
  std::array<bool, 256> starts_{};
};

std::string piece_bytes(const Vocabulary& vocabulary, TokenId id) {
  std::string_view text = vocabulary.text(id);
  TokenType type = vocabulary.type(id);
  if (type == TokenType::control || type == TokenType::unknown) return std::string(text);
  if (vocabulary.kind() != VocabularyKind::bpe) {
    if (type == TokenType::byte) {
      for (int byte = 0; byte < 256; ++byte)
        if (vocabulary.byte_token(static_cast<std::uint8_t>(byte)) == id)
          return std::string(1, static_cast<char>(byte));
    }
    return spaces_for_underlines(text);
  }
  if (type == TokenType::user_defined) return std::string(text);
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    Utf8Char c = decode_utf8(text.substr(at));
    int byte = c.valid ? letter_byte(c.code) : -1;
    if (byte < 0) return std::string(text);  // not in letters: the text itself
    out += static_cast<char>(byte);
    at += c.length;
  }
  return out;
}

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(Vocabulary v) : vocabulary(std::move(v)) {
    for (TokenId id = 0; id < vocabulary.size(); ++id) {
      pieces += piece_bytes(vocabulary, id);
      piece_ends.push_back(pieces.size());
      longest = std::max(longest, vocabulary.text(id).size());
      add_special(id);
    }
    user_defined.sort();
    control.sort();
    special.sort();
    if (vocabulary.kind() == VocabularyKind::bpe) bpe.emplace(vocabulary);
    if (vocabulary.kind() == VocabularyKind::spm) spm.emplace(vocabulary);
    if (vocabulary.kind() == VocabularyKind::character_bpe) character_bpe.emplace(vocabulary);
  }

  void add_special(TokenId id) {
    TokenType type = vocabulary.type(id);
    bool user = type == TokenType::user_defined;
    if (!user && type != TokenType::control && type != TokenType::unknown) return;
    std::string text(vocabulary.text(id));
    if (user && vocabulary.kind() != VocabularyKind::bpe) text = spaces_for_underlines(text);
    if (vocabulary.find(vocabulary.text(id)) != id) return;  // a duplicate
    (user ? user_defined : control).add(text, id);
    special.add(std::move(text), id);
  }

  void encode_plain(std::string_view text, std::vector<TokenId>& out) const {
    if (text.empty()) return;
    if (bpe) bpe->encode(vocabulary, text, out);
    if (character_bpe) character_bpe->encode(vocabulary, text, out);
    if (spm) spm->encode(vocabulary, text, vocabulary.add_space_prefix(), out);
  }

  // What lies between special tokens, its marks taken out.
  void encode_between(std::string_view text, std::string_view mark, std::vector<TokenId>& out) const {
    if (mark.empty() || text.find(mark) == std::string_view::npos) return encode_plain(text, out);
    encode_parts(without(text, mark), user_defined, {}, out);
  }

  // Cuts `text` at the tokens of `set`, longest first at each place, and encodes what lies between.
  void encode_parts(std::string_view text, const TextSet& set, std::string_view mark,
                    std::vector<TokenId>& out) const {
    std::size_t plain = 0;  // where the text not yet encoded begins
    for (std::size_t at = 0; at < text.size();) {
      if (!set.may_start(text[at])) {
        ++at;
        continue;
      }
      auto [id, length] = set.longest_prefix(text.substr(at));
      if (id == kNoToken) {
        ++at;
        continue;
      }
      encode_between(text.substr(plain, at - plain), mark, out);
      out.push_back(id);
      at += length;
      if (vocabulary.strip_after_special() && vocabulary.type(id) == TokenType::control)
        while (at < text.size() && std::string_view(" \t\n\r\f\v").find(text[at]) != std::string_view::npos)
          ++at;
      plain = at;
    }
    encode_between(text.substr(plain), mark, out);
  }

  Vocabulary vocabulary;
  std::string pieces;                      // bytes of all tokens, one after the other
  std::vector<std::size_t> piece_ends;     // token i is pieces[piece_ends[i-1] .. piece_ends[i])
  std::size_t longest = 0;                 // bytes of a token's text
  TextSet user_defined, control, special;  // cut out of text always; never by chance; the two together
  std::optional<BpeEncoder> bpe;
  std::optional<SpmEncoder> spm;
  std::optional<CharacterBpeEncoder> character_bpe;
};

Tokenizer::Tokenizer(Vocabulary vocabulary) : impl_(std::make_unique<const Impl>(std::move(vocabulary))) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

const Vocabulary& Tokenizer::vocabulary() const { return impl_->vocabulary; }
std::size_t Tokenizer::longest_token() const { return impl_->longest; }

std::vector<TokenId> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  const Vocabulary& vocabulary = impl_->vocabulary;
  if (vocabulary.kind() == VocabularyKind::none)
    throw_error(ErrorKind::unsupported, "this file holds no vocabulary, so text can't be turned into tokens");
  std::vector<TokenId> out;
  out.reserve(text.size() / 3 + 2);
  if (options.add_special && vocabulary.add_bos()) out.push_back(vocabulary.bos());
  // SentencePiece knows no difference between ▁ and a space.
  std::string spaced;
  if (vocabulary.kind() != VocabularyKind::bpe && text.find("\xE2\x96\x81") != std::string_view::npos)
    text = spaced = spaces_for_underlines(text);
  impl_->encode_parts(text, options.parse_special ? impl_->special : impl_->user_defined, options.mark, out);
  if (options.add_special && vocabulary.add_eos()) out.push_back(vocabulary.eos());
  return out;
}

std::size_t Tokenizer::control_token_at(std::string_view text) const {
  if (text.empty() || !impl_->control.may_start(text[0])) return 0;
  return impl_->control.longest_prefix(text).second;
}

std::string_view Tokenizer::piece(TokenId id, bool special) const {
  if (id < 0 || id >= size()) return {};
  TokenType type = impl_->vocabulary.type(id);
  if (!special && (type == TokenType::control || type == TokenType::unknown)) return {};
  std::size_t begin = id == 0 ? 0 : impl_->piece_ends[id - 1];
  return std::string_view(impl_->pieces).substr(begin, impl_->piece_ends[id] - begin);
}

std::string Tokenizer::decode(const std::vector<TokenId>& tokens, bool special) const {
  std::string out;
  bool first = impl_->vocabulary.add_space_prefix();
  for (TokenId id : tokens) {
    std::string_view bytes = piece(id, special);
    TokenType type = id >= 0 && id < size() ? impl_->vocabulary.type(id) : TokenType::control;
    bool plain = type != TokenType::control && type != TokenType::unknown;
    if (first && plain && !bytes.empty() && bytes[0] == ' ') bytes.remove_prefix(1);
    if (plain) first = false;
    out += bytes;
  }
  return out;
}

}  // namespace steelyard
