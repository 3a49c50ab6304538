// ROOMS: text
// Any bytes as text for every pre-tokenizer and both kinds of vocabulary (ids in range, decoding gives the
// text back, streams agree with the whole), and as a vocabulary of their own.
#include <array>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/utf8.h"
#include "text/merge.h"
#include "text/stream.h"
#include "text/tokenizer.h"

using namespace steelyard;

namespace {

constexpr std::array kPre = {"default",      "llama-bpe",      "qwen2",       "qwen35",     "gpt-2",
                             "smollm",       "falcon",         "gpt-4o",      "tekken",     "kimi-k2",
                             "deepseek-llm", "deepseek-coder", "deepseek-v3", "bailingmoe", "seed-coder",
                             "bloom",        "viking",         "jais-2",      "youtu",      "superbpe",
                             "chameleon",    "afmoe",          "exaone-moe",  "tiny_aya",   "laguna"};

void require(bool holds) {
  if (!holds) std::abort();
}

Tokenizer make_bpe(const char* pre) {
  std::vector<std::string> texts;
  for (int byte = 0; byte < 256; ++byte)
    append_utf8(texts.emplace_back(), byte_letter(static_cast<uint8_t>(byte)));
  std::vector<std::string> merges = {"a b", "ab c", "b c", "Ġ a", "Ġ Ġ",   "ĠĠ ĠĠ",
                                     "Ċ Ċ", "1 2",  "Ã ©", "a a", "aa aa", "< |"};
  for (std::string merge : merges) texts.push_back(merge.erase(merge.find(' '), 1));
  texts.insert(texts.end(), {"<|im_end|>", "<tag>", "xyz"});
  VocabularyParts parts;
  parts.model = "gpt2";
  parts.pre = pre;
  parts.types.assign(texts.size(), 1);
  parts.types[texts.size() - 3] = 3;
  parts.types[texts.size() - 2] = 4;
  parts.tokens.assign(texts.begin(), texts.end());
  parts.merges.assign(merges.begin(), merges.end());
  return Tokenizer(Vocabulary(parts));
}

Tokenizer make_spm(bool prefix, bool unused, bool character_bpe = false) {
  std::vector<std::string> texts = {"<unk>", "<s>", "</s>"};
  char name[8];
  for (int byte = 0; byte < 256; ++byte) {
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    texts.push_back(name);
  }
  texts.insert(texts.end(), {"▁", "a", "b", "c", "ab", "▁a", "bc", "abc", "▁▁", "▁▁▁▁", "é", "aa", "aaaa",
                             "a▁", ">▁<", "\n\n", "  ", "<tag>"});
  VocabularyParts parts;
  parts.model = "llama";
  parts.add_space_prefix = prefix;
  for (size_t i = 0; i < texts.size(); ++i) {
    parts.types.push_back(i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : i + 3 >= texts.size() ? 4 : 1);
    parts.scores.push_back(-static_cast<float>(i * 7 % 31));
  }
  if (character_bpe) {
    parts.model = "gemma4";
    parts.scores.clear();
    parts.merges = {"b c", "a b", "▁ a", "▁ ▁", "▁▁ ▁▁", "a bc", "a a", "aa aa"};
  }
  if (unused) parts.types[263] = parts.types[271] = 5;
  parts.tokens.assign(texts.begin(), texts.end());
  return Tokenizer(Vocabulary(parts));
}

void check(const Tokenizer& tokenizer, std::string_view text, bool underlines_are_spaces) {
  std::vector<TokenId> ids = tokenizer.encode(text, {.add_special = false, .parse_special = false});
  Utf8Stream stream;
  std::string streamed, all;
  for (TokenId id : ids) {
    require(id >= 0 && id < tokenizer.size());
    TokenType type = tokenizer.vocabulary().type(id);
    require(type != TokenType::control && type != TokenType::unknown);
    std::string out = stream.push(tokenizer.piece(id));
    require(valid_prefix(out) == out.size());
    streamed += out;
    all += tokenizer.piece(id);
  }
  require(streamed + stream.flush() == valid_utf8(all));
  std::string want(text);
  if (underlines_are_spaces)
    for (size_t at; (at = want.find("▁")) != std::string::npos;) want.replace(at, 3, " ");
  if (!tokenizer.vocabulary().add_space_prefix()) require(tokenizer.decode(ids) == want);
  for (TokenId id : tokenizer.encode(text, {.add_special = true, .parse_special = true}))
    require(id >= 0 && id < tokenizer.size());
}

// The text after a zero byte, one to three stop strings before it: what comes out holds none of them.
void check_stops(std::string_view text) {
  size_t cut = std::min(text.find('\0'), text.size());
  std::vector<std::string> stops = {std::string(text.substr(0, cut / 2)),
                                    std::string(text.substr(cut / 2, cut - cut / 2))};
  std::string_view body = text.substr(std::min(cut + 1, text.size()));
  StopMatcher whole(stops), bytes(stops);
  std::string once = whole.push(body), slow;
  once += whole.flush();
  for (char c : body) slow += bytes.push(std::string_view(&c, 1));
  slow += bytes.flush();
  require(once == slow && whole.stopped() == bytes.stopped() && whole.matched() == bytes.matched());
  for (const std::string& stop : stops) require(stop.empty() || once.find(stop) == std::string::npos);
  require(body.substr(0, once.size()) == once && (whole.stopped() || once == body));
}

// Lines are tokens (first byte: type), the last one a text to encode.
void check_vocabulary(std::string_view data) {
  VocabularyParts parts;
  parts.model = data[0] & 1 ? (data[0] & 128 ? "gemma4" : "llama") : "gpt2";
  parts.pre = kPre[static_cast<uint8_t>(data[0]) / 2 % kPre.size()];
  if (data[0] & 64) parts.ignore_merges = true;
  data.remove_prefix(1);
  while (true) {
    size_t end = data.find('\n');
    if (end == std::string_view::npos) break;
    std::string_view line = data.substr(0, end);
    data.remove_prefix(end + 1);
    if (line.find(' ', 2) != std::string_view::npos && parts.model != "llama") parts.merges.push_back(line);
    parts.types.push_back(line.empty() ? 1 : static_cast<uint8_t>(line[0]) % 8);
    parts.scores.push_back(line.size() > 1 ? static_cast<float>(line[1]) : 0.0f);
    parts.tokens.push_back(line.substr(std::min<size_t>(line.size(), 1)));
  }
  parts.bos = parts.tokens.size() / 2;
  parts.add_eos = true;
  Tokenizer tokenizer{Vocabulary(parts)};
  for (bool special : {false, true})
    for (TokenId id : tokenizer.encode(data, {.add_special = true, .parse_special = special}))
      require(id >= 0 && id < tokenizer.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  static std::array<std::optional<Tokenizer>, kPre.size()> bpe;
  static const Tokenizer spm = make_spm(false, false), prefixed = make_spm(true, false),
                         unused = make_spm(false, true), characters = make_spm(false, false, true);
  if (size < 2) return 0;
  std::string_view data(reinterpret_cast<const char*>(bytes), size);
  size_t choice = bytes[0] % (kPre.size() + 6);
  std::string_view text = data.substr(1);
  try {
    if (choice < kPre.size()) {
      if (!bpe[choice]) bpe[choice].emplace(make_bpe(kPre[choice]));
      check(*bpe[choice], text, false);
    } else if (choice == kPre.size()) {
      check(spm, text, true);
    } else if (choice == kPre.size() + 1) {
      check(prefixed, text, true);
    } else if (choice == kPre.size() + 2) {
      check(unused, text, true);
    } else if (choice == kPre.size() + 3) {
      check(characters, text, true);
    } else if (choice == kPre.size() + 4) {
      check_stops(text);
    } else {
      check_vocabulary(text);
    }
  } catch (const Error&) {
  }
  return 0;
}
