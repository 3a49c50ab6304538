#include "text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/utf8.h"

namespace steelyard {

namespace {

// Pieces of expressions. They were written for Unicode's White_Space, while PCRE2's \s also takes U+180E, so
// the property is spelt out. Each expression is the one in the tokenizer.json of the model family it is named
// after.
#define WS "\\t-\\r\\x{85}\\p{Z}"
#define SPACE "[" WS "]"
#define NOT_SPACE "[^" WS "]"
#define SPACES SPACE "+(?!" NOT_SPACE ")|" SPACE "+"
#define LINES_SPACES SPACE "*[\\r\\n]+|" SPACES
#define ENDINGS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORD "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define SIGNS " ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*"
#define CAPITALS "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define SMALLS "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
// The same two without Han.
#define CAPITALS_NO_HAN "[^\\p{Ll}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{C}\\p{sc:Han}]"
#define SMALLS_NO_HAN "[^\\p{Lu}\\p{Lt}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{C}\\p{sc:Han}]"
#define LEAD "[^\\r\\n\\p{L}\\p{N}]?"

constexpr char kGpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+|" SPACES;
constexpr char kLlama3[] = ENDINGS "|" WORD "|\\p{N}{1,3}|" SIGNS "|" LINES_SPACES;
constexpr char kQwen2[] = ENDINGS "|" WORD "|\\p{N}|" SIGNS "|" LINES_SPACES;
constexpr char kUfakzeka[] = WORD "|\\p{N}|" SIGNS "|" LINES_SPACES;
constexpr char kMinicpm5[] = ENDINGS "|" WORD "|\\p{N}+|" SIGNS "|" LINES_SPACES;
// Runs of white space in pieces of a power of two, but for the last one before a word.
#define BEFORE_SPACE "(?!" NOT_SPACE ")|" SPACE
constexpr char kJais2[] =
    ENDINGS "|" WORD "|\\p{N}{1,3}|" SIGNS "|" SPACE "*[\\r\\n]+|" SPACE "{512}" BEFORE_SPACE
            "{256}" BEFORE_SPACE "{128}" BEFORE_SPACE "{64}" BEFORE_SPACE "{32}" BEFORE_SPACE
            "{16}" BEFORE_SPACE "{8}" BEFORE_SPACE "{4}" BEFORE_SPACE "{1,2}" BEFORE_SPACE;
constexpr char kExaoneMoe[] =
    ENDINGS "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^" WS
            "\\p{L}\\p{N}]+[\\r\\n/]?|" SPACE "*[\\r\\n]|" SPACES;
constexpr char kQwen35[] = ENDINGS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^" WS
                                   "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" LINES_SPACES;
constexpr char kSeedCoder[] = ENDINGS "|" WORD "|\\p{N}| ?[^" WS "\\p{L}\\p{N}\\r\\n]+|" LINES_SPACES;
constexpr char kBailing[] = "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^" WS
                            "\\p{L}\\p{N}]++[\\r\\n]*|" SPACE "*[\\r\\n]|" SPACES;
constexpr char kGpt4o[] = LEAD CAPITALS "*" SMALLS "+" ENDINGS "?|" LEAD CAPITALS "+" SMALLS "*" ENDINGS
                                        "?|\\p{N}{1,3}| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n/]*|" LINES_SPACES;
// Korean, full-width signs, Bopomofo and Chinese or Japanese in words of their own; then as gpt-4o, digit by
// digit.
constexpr char kYoutuScripts[] =
    "[\\x{AC00}-\\x{D7A3}\\x{3131}-\\x{318E}]+|[\\x{FF01}\\x{2026}\\x{201C}\\x{201D}\\x{2018}\\x{2019}\\x{"
    "2014}"
    "\\x{FF1A}\\x{FF1B}\\x{FF0C}\\x{3001}-\\x{303F}\\x{FE30}-\\x{FE4F}]+|[\\x{3105}-\\x{312F}]+|"
    "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+";
constexpr char kYoutu[] = LEAD CAPITALS "*" SMALLS "+" ENDINGS "?|" LEAD CAPITALS "+" SMALLS "*" ENDINGS
                                        "?|\\p{N}| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n/]*|" LINES_SPACES;
constexpr char kTekken[] = LEAD CAPITALS "*" SMALLS "+|" LEAD CAPITALS "+" SMALLS "*|\\p{N}| ?[^" WS
                                         "\\p{L}\\p{N}]+[\\r\\n/]*|" LINES_SPACES;
constexpr char kKimi[] =
    "\\p{sc:Han}+|" LEAD CAPITALS_NO_HAN "*" SMALLS_NO_HAN "+" ENDINGS "?|" LEAD CAPITALS_NO_HAN
    "+" SMALLS_NO_HAN "*" ENDINGS "?|\\p{N}{1,3}|" SIGNS "|" LINES_SPACES;
constexpr char kDeepseek3[] =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" LINES_SPACES;
constexpr char kSpark[] =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+|[\\r\\n]|" SPACES;
constexpr char kDeepseek3Cjk[] = "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+";
constexpr char kDeepseekCjk[] = "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+";
constexpr char kDeepseekSigns[] =
    SPACE "?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+";
constexpr char kDeepseekLetters[] = SPACE
    "?["
    "\\x{41}-\\x{5A}\\x{61}-\\x{7A}\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}"
    "\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}"
    "\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}"
    "\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}"
    "\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}"
    "\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}"
    "\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}"
    "\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}"
    "\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}"
    "\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}"
    "\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}"
    "\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}"
    "\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}"
    "\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}"
    "\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}"
    "\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"
    "]+";
constexpr char kBloom[] = " ?[^(" WS "|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+";
constexpr char kDigit[] = "\\p{N}";
constexpr char kDigits[] = "\\p{N}+";
constexpr char kThreeDigits[] = "[0-9][0-9][0-9]";
constexpr char kUpToThreeDigits[] = "\\p{N}{1,3}";
// Thousands, counted from the right.
// In the publishers' files \d{1,3}(?=(?:\d{3})*\b), \p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$)) and
// (?=(\d{3})+(?!\d)).
using Cut = PretokenizerPattern::Cut;
constexpr PretokenizerPattern kThousands{"(?<!\\d)\\d++\\b", Cut::thousands};
constexpr PretokenizerPattern kThousandsOfAnyDigit{"\\p{N}++", Cut::thousands};
constexpr PretokenizerPattern kBeforeThousands{"\\d++", Cut::between_thousands};
constexpr char kLines[] = "[^\\n]+|\\n+";
constexpr char kAfmoeScripts[] =
    "[\\x{4E00}-\\x{9FFF}\\x{3400}-\\x{4DBF}\\x{F900}-\\x{FAFF}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}\\x{"
    "FF65}-\\x{FF9F}"
    "\\x{2F00}-\\x{2FDF}\\x{E40}-\\x{E7F}\\x{E80}-\\x{EFF}\\x{1780}-\\x{17FF}\\x{1000}-\\x{109F}\\x{AA60}-"
    "\\x{AA7F}"
    "\\x{A9E0}-\\x{A9FF}\\x{AC00}-\\x{D7AF}\\x{1100}-\\x{11FF}]+";
constexpr char kChameleonImage[] = "IMGIMG(?:A|B|C|D|E|F|G|H|I){1,4}Z";

using Names = std::vector<const char*>;

std::map<std::string_view, PretokenizerSpec> make_specs() {
  std::map<std::string_view, PretokenizerSpec> specs;
  auto add = [&](const Names& names, const PretokenizerSpec& spec) {
    for (const char* name : names) specs[name] = spec;
  };
  add({"default"}, {{"[\\p{P}\\$\\+<=>\\^~\\|]+", kGpt2, kDigits, kThreeDigits}});
  add({"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
       "jina-v5-nano"},
      {{kLlama3}, true, true});
  add({"dbrx", "smaug-bpe", "chatglm-bpe"}, {{kLlama3}});
  add({"glm4", "glm5"}, {{kLlama3}, false, true});
  add({"jais-2"}, {{kJais2}});
  add({"minicpm5"}, {{kUpToThreeDigits, kMinicpm5}, false, true});
  add({"ufakzeka"}, {{kUfakzeka}});
  add({"laguna"}, {{kLines, kQwen2}});
  add({"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "stablelm2", "hunyuan", "megrez", "solar-open",
       "grok-2"},
      {{kQwen2}});
  add({"qwen35"}, {{kQwen35}});
  add({"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "jina-es", "jina-de",
       "jina-v2-es", "jina-v2-de", "jina-v1-en", "jina-v2-code", "roberta-bpe", "gigachat", "a.x-4.0",
       "mellum", "modern-bert", "exaone4"},
      {{kGpt2}});
  add({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"},
      {{kDigit, kGpt2}});
  add({"falcon"}, {{"[\\p{P}\\$\\+<=>\\^~\\|`]+", kGpt2, kThreeDigits}});
  add({"gpt-4o", "llama4", "kanana2", "minimax-m2", "talkie"}, {{kGpt4o}});
  add({"granite-embed-multi-97m"}, {{kGpt4o}, false, true});
  add({"tiny_aya", "cohere2moe"}, {{kThousands, kGpt4o}});
  add({"youtu"}, {{kYoutuScripts, kYoutu}, false, true});
  add({"superbpe"}, {{kDigits, kBeforeThousands}});
  add({"exaone-moe"}, {{kExaoneMoe}});
  add({"chameleon"},
      {{"<sentinel:[0-9]+>", kChameleonImage, "[\\t\\n]|    |  ", kDigit, "[\\p{P}!-/:-@\\[-`{-~]", kGpt2},
       true});
  add({"tekken"}, {{kTekken}, true, true});
  add({"kimi-k2"}, {{kKimi}});
  add({"deepseek-llm"},
      {{"[\\r\\n]", kDeepseekLetters, kDeepseekSigns, SPACE "+\\z", kDeepseekCjk, kDigits}});
  add({"deepseek-coder"}, {{"[\\r\\n]", SPACE "?\\p{L}+", SPACE "?\\p{P}+", kDeepseekCjk, kDigit}});
  add({"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"},
      {{kUpToThreeDigits, kDeepseek3Cjk, kDeepseek3}});
  add({"spark2_5"}, {{kUpToThreeDigits, kDeepseek3Cjk, kSpark, kDigit}});
  add({"afmoe"}, {{kThousandsOfAnyDigit, kAfmoeScripts, kDeepseek3}});
  add({"bailingmoe", "bailingmoe2", "llada-moe"}, {{kBailing}});
  add({"seed-coder"}, {{kSeedCoder}});
  add({"bloom", "poro-chat", "gpt3-finnish"}, {{kBloom}});
  add({"viking"}, {{kBloom, kDigit}});
  return specs;
}

}  // namespace

const PretokenizerSpec* find_pretokenizer(std::string_view name) {
  static const std::map<std::string_view, PretokenizerSpec> specs = make_specs();
  auto found = specs.find(name);
  return found == specs.end() ? nullptr : &found->second;
}

// One compiled expression. The code is read-only after construction; match data belongs to each call.
struct Pretokenizer::Pattern {
  explicit Pattern(const PretokenizerPattern& pattern) : cut(pattern.cut) {
    int error = 0;
    PCRE2_SIZE at = 0;
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.expression), PCRE2_ZERO_TERMINATED,
                         PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &error, &at, nullptr);
    if (code == nullptr)
      throw_error(ErrorKind::internal, "pre-tokenizer expression does not compile (PCRE2 error {} at {})",
                  error, at);
    jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
  }
  ~Pattern() { pcre2_code_free(code); }
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;

  // `text` is valid UTF-8. Returns false when nothing matches from `start` on.
  bool find(std::string_view text, std::size_t start, pcre2_match_data* data) const {
    auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    if (jit) rc = pcre2_jit_match(code, subject, text.size(), start, 0, data, nullptr);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
      rc = pcre2_match(code, subject, text.size(), start, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, nullptr);
    if (rc >= 0) return true;
    if (rc == PCRE2_ERROR_NOMATCH) return false;
    throw_error(ErrorKind::bad_input,
                "a text of {} bytes is too hard for this model's pre-tokenizer (PCRE2 error {})", text.size(),
                rc);
  }

  pcre2_code* code = nullptr;
  bool jit = false;
  Cut cut;
};

namespace {

std::size_t count_digits(std::string_view run) {
  return static_cast<std::size_t>(
      std::count_if(run.begin(), run.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

// Appends the places in the run of digits `run` where a thousand begins, but for the run's own beginning.
void cut_thousands(std::string_view run, std::size_t offset, std::vector<std::size_t>& ends) {
  const std::size_t digits = count_digits(run);
  std::size_t number = 0;
  for (std::size_t at = 0; at < run.size(); at += decode_utf8(run.substr(at)).length, ++number)
    if (at > 0 && (digits - number) % 3 == 0) ends.push_back(offset + at);
}

}  // namespace

// Appends the ends of matches and gaps of `piece`, which begins at `offset` of the whole text.
void Pretokenizer::split_piece(const Pattern& pattern, std::string_view piece, std::size_t offset,
                               void* match_data, std::vector<std::size_t>& ends) {
  auto* data = static_cast<pcre2_match_data*>(match_data);
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(data);
  std::size_t done = 0, from = 0;
  while (from < piece.size() && pattern.find(piece, from, data)) {
    std::size_t begin = found[0], end = found[1];
    const std::string_view run = piece.substr(begin, end - begin);
    from = end;
    if (pattern.cut == Cut::between_thousands) {
      if (begin > done && count_digits(run) % 3 == 0) ends.push_back(offset + begin);
      cut_thousands(run, offset + begin, ends);
      if (!ends.empty() && ends.back() > offset + done) done = ends.back() - offset;
      continue;
    }
    if (begin > done) ends.push_back(offset + begin);
    if (pattern.cut == Cut::thousands) cut_thousands(run, offset + begin, ends);
    ends.push_back(offset + end);
    done = end;
  }
  if (done < piece.size()) ends.push_back(offset + piece.size());
}

Pretokenizer::Pretokenizer(const PretokenizerSpec& spec) {
  for (const PretokenizerPattern& pattern : spec.patterns)
    patterns_.push_back(std::make_unique<const Pattern>(pattern));
}

Pretokenizer::~Pretokenizer() = default;

void Pretokenizer::split(std::string_view text, std::vector<std::size_t>& ends) const {
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create(1, nullptr), &pcre2_match_data_free);
  std::vector<std::size_t> pieces, next;
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t length = valid_prefix(text.substr(begin));
    if (length == 0) {  // a byte that isn't UTF-8
      begin += decode_utf8(text.substr(begin)).length;
      ends.push_back(begin);
      continue;
    }
    pieces.assign(1, begin + length);
    for (const auto& pattern : patterns_) {
      next.clear();
      std::size_t at = begin;
      for (std::size_t end : pieces) {
        split_piece(*pattern, text.substr(at, end - at), at, data.get(), next);
        at = end;
      }
      pieces.swap(next);
    }
    ends.insert(ends.end(), pieces.begin(), pieces.end());
    begin += length;
  }
}

}  // namespace steelyard
