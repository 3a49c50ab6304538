#include "text/vocabulary.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/error.h"
#include "base/readable.h"
#include "text/pretokenizer.h"

namespace steelyard {

namespace {

constexpr std::size_t kMaxTokens = std::size_t{1} << 26;

// The value of "<0xAB>", or -1.
int byte_value(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return -1;
  int value = 0;
  for (char c : text.substr(3, 2)) {
    if (c >= '0' && c <= '9') {
      value = value * 16 + (c - '0');
    } else if (c >= 'A' && c <= 'F') {
      value = value * 16 + (c - 'A' + 10);
    } else if (c >= 'a' && c <= 'f') {
      value = value * 16 + (c - 'a' + 10);
    } else {
      return -1;
    }
  }
  return value;
}

VocabularyKind kind_of(std::string_view model) {
  if (model == "none" || model == "no_vocab") return VocabularyKind::none;
  if (model == "llama") return VocabularyKind::spm;
  if (model == "gpt2") return VocabularyKind::bpe;
  if (model == "gemma4") return VocabularyKind::character_bpe;
  throw_error(ErrorKind::unsupported,
              "tokenizer model \"{}\" is not supported (supported: llama, gpt2, gemma4, none)",
              readable(model));
}

}  // namespace

Vocabulary::Vocabulary(const VocabularyParts& parts) : kind_(kind_of(parts.model)) {
  byte_tokens_.fill(kNoToken);
  chat_template_ = parts.chat_template;
  strip_after_special_ = parts.strip_after_special;
  if (kind_ == VocabularyKind::none) return;
  store_tokens(parts);
  store_types(parts);
  build_index();
  store_special(parts);
  find_end_tokens(parts);
  if (kind_ != VocabularyKind::bpe) store_byte_tokens();
  if (kind_ != VocabularyKind::spm) store_merges(parts);
}

void Vocabulary::store_tokens(const VocabularyParts& parts) {
  if (parts.tokens.empty()) throw_error(ErrorKind::bad_input, "the vocabulary has no tokens");
  std::size_t bytes = 0;
  for (std::string_view text : parts.tokens) bytes += text.size();
  if (parts.tokens.size() > kMaxTokens || bytes > UINT32_MAX)
    throw_error(ErrorKind::bad_input, "a vocabulary of {} tokens and {} bytes is too large",
                parts.tokens.size(), bytes);
  arena_.reserve(bytes);
  ends_.reserve(parts.tokens.size());
  for (std::string_view text : parts.tokens) {
    arena_.append(text);
    ends_.push_back(static_cast<std::uint32_t>(arena_.size()));
  }
  if (!parts.scores.empty() && parts.scores.size() != parts.tokens.size())
    throw_error(ErrorKind::bad_input, "the vocabulary has {} tokens but {} scores", parts.tokens.size(),
                parts.scores.size());
  if (std::any_of(parts.scores.begin(), parts.scores.end(), [](float s) { return std::isnan(s); }))
    throw_error(ErrorKind::bad_input, "a token's score is not a number");
  scores_ = parts.scores;
}

void Vocabulary::store_types(const VocabularyParts& parts) {
  if (!parts.types.empty() && parts.types.size() != parts.tokens.size())
    throw_error(ErrorKind::bad_input, "the vocabulary has {} tokens but {} token types", parts.tokens.size(),
                parts.types.size());
  types_.assign(parts.tokens.size(), TokenType::normal);
  for (std::size_t i = 0; i < parts.types.size(); ++i) {
    std::int32_t type = parts.types[i];
    if (type < 0 || type > 6) throw_error(ErrorKind::bad_input, "token {} has the unknown type {}", i, type);
    if (type > 0) types_[i] = static_cast<TokenType>(type);
  }
}

void Vocabulary::store_byte_tokens() {
  for (TokenId id = 0; id < size(); ++id) {
    if (type(id) != TokenType::byte) continue;
    int value = byte_value(text(id));
    if (value < 0)
      throw_error(ErrorKind::bad_input,
                  "token {} is marked as a byte, but its text \"{}\" is not of the form <0xAB>", id,
                  readable(text(id)));
    byte_tokens_[value] = id;
  }
}

void Vocabulary::build_index() {
  slots_.assign(std::bit_ceil(ends_.size() * 2), kNoToken);
  std::size_t mask = slots_.size() - 1;
  for (TokenId id = 0; id < size(); ++id) {
    std::size_t at = hash_(text(id)) & mask;
    while (slots_[at] != kNoToken && text(slots_[at]) != text(id)) at = (at + 1) & mask;
    // Of equal texts the last one counts, except that padding a vocabulary out must not hide a real token.
    if (slots_[at] == kNoToken || type(id) != TokenType::unused) slots_[at] = id;
  }
}

std::string_view Vocabulary::text(TokenId id) const {
  std::uint32_t begin = id == 0 ? 0 : ends_[id - 1];
  return std::string_view(arena_).substr(begin, ends_[id] - begin);
}

TokenId Vocabulary::find(std::string_view wanted) const {
  if (slots_.empty()) return kNoToken;
  std::size_t mask = slots_.size() - 1;
  for (std::size_t at = hash_(wanted) & mask; slots_[at] != kNoToken; at = (at + 1) & mask)
    if (text(slots_[at]) == wanted) return slots_[at];
  return kNoToken;
}

void Vocabulary::store_merges(const VocabularyParts& parts) {
  merges_.reserve(parts.merges.size());
  for (std::size_t i = 0; i < parts.merges.size(); ++i) {
    std::string_view rule = parts.merges[i];
    std::size_t space = rule.find(' ', 1);  // a piece is never empty, so a space at 0 belongs to the left one
    if (space == std::string_view::npos || space + 1 == rule.size())
      throw_error(ErrorKind::bad_input, "merge {} (\"{}\") is not two pieces with a space between", i,
                  readable(rule));
    std::string_view left = rule.substr(0, space), right = rule.substr(space + 1);
    std::string joined(left);
    joined += right;
    Merge merge{find(left), find(right), find(joined)};
    // A rule over pieces that aren't tokens can never apply, nor may one spell a control token; both keep
    // their rank.
    if (merge.merged != kNoToken && type(merge.merged) == TokenType::control) merge.merged = kNoToken;
    merges_.push_back(merge);
  }
}

bool Vocabulary::is_out_of_range(const std::optional<std::int64_t>& id) const {
  return id && *id != kNoToken && (*id < 0 || *id >= size());
}

TokenId Vocabulary::checked_id(const std::optional<std::int64_t>& id, TokenId fallback,
                               const char* key) const {
  if (!id) return fallback < size() ? fallback : kNoToken;
  if (is_out_of_range(id))
    throw_error(ErrorKind::bad_input, "{} is {}, but the vocabulary has {} tokens", key, *id, size());
  return static_cast<TokenId>(*id);
}

TokenId Vocabulary::id_or_note(const std::optional<std::int64_t>& id, TokenId fallback, const char* key) {
  if (!is_out_of_range(id)) return checked_id(id, fallback, key);
  notes_.push_back(
      fmt::format("{} is {}, but the vocabulary has {} tokens: it counts as none", key, *id, size()));
  return kNoToken;
}

void Vocabulary::store_special(const VocabularyParts& parts) {
  bool spm = kind_ != VocabularyKind::bpe, forced_bos = kind_ == VocabularyKind::character_bpe;
  constexpr const char *kBos = "tokenizer.ggml.bos_token_id", *kEos = "tokenizer.ggml.eos_token_id";
  bos_ = id_or_note(parts.bos, spm ? 1 : 11, kBos);
  eos_ = id_or_note(parts.eos, spm ? 2 : 11, kEos);
  unknown_ = checked_id(parts.unknown, spm ? 0 : kNoToken, "tokenizer.ggml.unknown_token_id");
  padding_ = id_or_note(parts.padding, kNoToken, "tokenizer.ggml.padding_token_id");
  id_or_note(parts.separator, kNoToken, "tokenizer.ggml.seperator_token_id");
  const PretokenizerSpec* spec = nullptr;
  if (!spm) {
    pre_missing_ = parts.pre.empty();
    pre_ = pre_missing_ ? "default" : parts.pre;
    spec = find_pretokenizer(pre_);
    if (spec == nullptr)
      throw_error(ErrorKind::unsupported,
                  "pre-tokenizer \"{}\" (tokenizer.ggml.pre) is not known; guessing another would silently "
                  "change the "
                  "tokens",
                  readable(pre_));
  }
  const bool wants_bos = forced_bos || parts.add_bos.value_or(spm || spec->add_bos);
  if (wants_bos) checked_id(parts.bos, kNoToken, kBos);  // needed: then it has to be right
  if (parts.add_eos.value_or(false)) checked_id(parts.eos, kNoToken, kEos);
  add_bos_ = wants_bos && bos_ != kNoToken;
  add_eos_ = parts.add_eos.value_or(false) && eos_ != kNoToken;
  add_space_prefix_ = kind_ == VocabularyKind::spm && parts.add_space_prefix.value_or(true);
  ignore_merges_ = !spm && parts.ignore_merges.value_or(spec->ignore_merges);
}

void Vocabulary::find_end_tokens(const VocabularyParts& parts) {
  // Distinctive texts end an answer whatever their type says; those that are also mark-up only as control
  // tokens.
  static constexpr std::string_view kDistinctive[] = {"<|im_end|>",
                                                      "<|eot_id|>",
                                                      "<|eom_id|>",
                                                      "<|end|>",
                                                      "<|return|>",
                                                      "<|call|>",
                                                      "<end_of_turn>",
                                                      "<|endoftext|>",
                                                      "<|end_of_text|>",
                                                      "<|eot|>",
                                                      "<|eom|>",
                                                      "<|end_of_turn|>",
                                                      "<|END_OF_TURN_TOKEN|>",
                                                      "<｜end▁of▁sentence｜>",
                                                      "<end_of_utterance>",
                                                      "<|fim_pad|>",
                                                      "<|repo_name|>",
                                                      "<|file_sep|>",
                                                      "<|role_end|>",
                                                      "<turn|>",
                                                      "[e~["};
  static constexpr std::string_view kControlOnly[] = {"</s>", "<eos>", "[EOS]", "<EOT>", "_<EOT>", "<eod>"};
  auto add = [&](TokenId id) {
    if (id != kNoToken) end_tokens_.push_back(id);
  };
  bool harmony = find("<|return|>") != kNoToken && find("<|call|>") != kNoToken;
  for (std::string_view text : kDistinctive)
    if (!(harmony && text == "<|end|>")) add(find(text));  // gpt-oss: <|end|> only ends a message
  for (std::string_view text : kControlOnly) {
    TokenId id = find(text);
    if (id != kNoToken && type(id) == TokenType::control) add(id);
  }
  add(eos_);
  add(id_or_note(parts.eot, kNoToken, "tokenizer.ggml.eot_token_id"));
  add(id_or_note(parts.eom, kNoToken, "tokenizer.ggml.eom_token_id"));
  // Without any end an answer would go on for ever.
  if (end_tokens_.empty()) checked_id(parts.eos, kNoToken, "tokenizer.ggml.eos_token_id");
  std::sort(end_tokens_.begin(), end_tokens_.end());
  end_tokens_.erase(std::unique(end_tokens_.begin(), end_tokens_.end()), end_tokens_.end());
}

bool Vocabulary::is_end(TokenId id) const {
  return std::binary_search(end_tokens_.begin(), end_tokens_.end(), id);
}

}  // namespace steelyard
