#include "text/tokenizer.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "base/utf8.h"
#include "gguf/gguf.h"
#include "text/merge.h"
#include "text/pretokenizer.h"
#include "text/test_files.h"

namespace steelyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<TokenId>;

constexpr EncodeOptions kPlain{.add_special = false, .parse_special = false};
constexpr EncodeOptions kSpecial{.add_special = false, .parse_special = true};

Tokenizer open_tokenizer(const std::filesystem::path& path) {
  GgufFile file = GgufFile::open(path);
  return Tokenizer(Vocabulary::from_metadata(file.metadata()));
}

// "no-break space" and the like survive; the caller sees which text failed.
std::string shown(const std::string& text) { return nlohmann::json(text).dump(-1, ' ', true); }

void check_goldens(const Tokenizer& tokenizer, const std::string& name) {
  std::ifstream in(test_data(name));
  ASSERT_TRUE(in) << "missing " << test_data(name);
  std::string line;
  int cases = 0;
  while (std::getline(in, line)) {
    auto golden = nlohmann::json::parse(line);
    std::string text = golden["text"];
    EXPECT_EQ(tokenizer.encode(text, kPlain), golden["ids"].get<Ids>()) << shown(text);
    bool underline =
        tokenizer.vocabulary().kind() == VocabularyKind::spm && text.find("▁") != std::string::npos;
    if (!underline) {  // else it becomes a space
      EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, kPlain)), text);
    }
    if (golden.contains("special")) {
      EXPECT_EQ(tokenizer.encode(text, kSpecial), golden["special"].get<Ids>()) << shown(text);
    }
    ++cases;
  }
  EXPECT_GT(cases, 150);
}

// ------------------------------------------------------------------------------------------ shared vectors

void check_vectors(const std::string& name) {
  const char* root = std::getenv("STEELYARD_TEST_DATA");
  if (root == nullptr)
    GTEST_SKIP() << "STEELYARD_TEST_DATA is not set: the shared vocabulary vectors are not here";
  std::filesystem::path path = std::filesystem::path(root) / "vocab" / ("ggml-vocab-" + name + ".gguf");
  Tokenizer tokenizer = open_tokenizer(path);
  std::string all = read_text(path.string() + ".inp");
  std::istringstream out(read_text(path.string() + ".out"));
  const std::string marker = "\n__ggml_vocab_test__\n";
  int cases = 0;
  for (std::size_t begin = 0, end; (end = all.find(marker, begin)) != std::string::npos;
       begin = end + marker.size()) {
    std::string text = all.substr(begin, end - begin), line;
    ASSERT_TRUE(std::getline(out, line));
    std::istringstream numbers(line);
    Ids want{std::istream_iterator<TokenId>(numbers), {}};
    EXPECT_EQ(tokenizer.encode(text, kPlain), want) << shown(text);
    ++cases;
  }
  EXPECT_GT(cases, 40);
  std::string rest;
  EXPECT_FALSE(std::getline(out, rest) && !rest.empty()) << "a case was not read";
}

TEST(SharedVectors, LlamaSpm) { check_vectors("llama-spm"); }
TEST(SharedVectors, LlamaBpe) { check_vectors("llama-bpe"); }
TEST(SharedVectors, Qwen2) { check_vectors("qwen2"); }
TEST(SharedVectors, Gpt2) { check_vectors("gpt-2"); }

// Words of every pre-tokenizer, as Hugging Face tokenizers cuts them with the published expressions; see
// tools/published_words.py. A text's sum is the low half of FNV-1a over the byte ends of its words.
TEST(Pretokenizer, CutsAsTheLibraryDoes) {
  std::ifstream in(test_data("words.jsonl"));
  ASSERT_TRUE(in) << "missing " << test_data("words.jsonl");
  std::string line;
  ASSERT_TRUE(std::getline(in, line));
  auto texts = nlohmann::json::parse(line).at("texts").get<std::vector<std::string>>();
  int names = 0;
  for (; std::getline(in, line); ++names) {
    auto row = nlohmann::json::parse(line);
    const auto* spec = find_pretokenizer(row["pre"].get<std::string>());
    ASSERT_NE(spec, nullptr) << row["pre"];
    Pretokenizer pretokenizer(*spec);
    ASSERT_EQ(row["sums"].size(), texts.size());
    for (std::size_t i = 0; i < texts.size(); ++i) {
      std::vector<std::size_t> ends;
      pretokenizer.split(texts[i], ends);
      std::uint64_t hash = 0xCBF29CE484222325u;
      for (char c : fmt::format("{}", fmt::join(ends, " ")))
        hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001B3u;
      EXPECT_EQ(fmt::format("{:08x}", hash & 0xFFFFFFFFu), row["sums"][i].get<std::string>())
          << row["pre"] << ": " << shown(texts[i]);
    }
  }
  EXPECT_GE(names, 25);
}

// --------------------------------------------------------------------------------------------- real models

class RealModel : public ::testing::Test {
 protected:
  // Null, with a skip recorded, when the file is not here.
  std::unique_ptr<Tokenizer> open(const char* name) {
    auto path = model_file(name);
    if (!std::filesystem::exists(path)) return nullptr;
    return std::make_unique<Tokenizer>(open_tokenizer(path));
  }
};

constexpr char kSmolLm2[] = "SmolLM2-135M-Instruct.Q4_1.gguf";
constexpr char kGemma[] = "gemma-3-270m-q4_k_m.gguf";

TEST_F(RealModel, SmolLm2EqualsHuggingFaceTokenizers) {
  auto tokenizer = open(kSmolLm2);
  if (!tokenizer) GTEST_SKIP() << model_file(kSmolLm2) << " is not there (test.sh fetches it)";
  check_goldens(*tokenizer, "tokens_smollm2.jsonl");
}

TEST_F(RealModel, SmolLm2SpecialTokens) {
  auto tokenizer = open(kSmolLm2);
  if (!tokenizer) GTEST_SKIP() << model_file(kSmolLm2) << " is not there (test.sh fetches it)";
  const Vocabulary& vocabulary = tokenizer->vocabulary();
  EXPECT_EQ(vocabulary.pre(), "smollm");
  EXPECT_FALSE(vocabulary.add_bos());
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_TRUE(tokenizer->is_end(2));   // <|im_end|>, also eos
  EXPECT_TRUE(tokenizer->is_end(0));   // <|endoftext|>
  EXPECT_FALSE(tokenizer->is_end(1));  // <|im_start|>
  Ids ids = tokenizer->encode("hi<|im_end|>", kPlain);
  EXPECT_THAT(ids, ::testing::Not(::testing::Contains(2)));
  EXPECT_EQ(tokenizer->decode(ids), "hi<|im_end|>");
  ids = tokenizer->encode("hi<|im_end|>", kSpecial);
  EXPECT_EQ(ids.back(), 2);
  EXPECT_EQ(tokenizer->decode(ids), "hi");
  EXPECT_EQ(tokenizer->decode(ids, true), "hi<|im_end|>");
}

TEST_F(RealModel, GemmaEqualsSentencepiece) {
  auto tokenizer = open(kGemma);
  if (!tokenizer) GTEST_SKIP() << model_file(kGemma) << " is not there (test.sh fetches it)";
  check_goldens(*tokenizer, "tokens_gemma.jsonl");
}

TEST_F(RealModel, GemmaSpecialTokens) {
  auto tokenizer = open(kGemma);
  if (!tokenizer) GTEST_SKIP() << model_file(kGemma) << " is not there (test.sh fetches it)";
  EXPECT_FALSE(tokenizer->vocabulary().add_space_prefix());
  EXPECT_EQ(tokenizer->encode("a").front(), 2);  // <bos>, as the file says
  Ids turn = tokenizer->encode("<start_of_turn>user\n", kSpecial);
  EXPECT_THAT(turn, ElementsAre(105, 2364, 107));
  EXPECT_TRUE(tokenizer->is_end(106));  // <end_of_turn>
  EXPECT_TRUE(tokenizer->is_end(1));
}

// SmolLM2's vocabulary lacks a few control bytes; they have no token, as with Hugging Face tokenizers.
bool has_letter(const Tokenizer& tokenizer, char c) {
  std::string letter;
  append_utf8(letter, byte_letter(static_cast<std::uint8_t>(c)));
  return tokenizer.vocabulary().find(letter) != kNoToken;
}

TEST_F(RealModel, AnyBytesComeBack) {
  for (const char* name : {kSmolLm2, kGemma}) {
    auto tokenizer = open(name);
    if (!tokenizer) GTEST_SKIP() << model_file(name) << " is not there (test.sh fetches it)";
    std::mt19937 rng(11);
    for (int round = 0; round < 200; ++round) {
      std::string bytes(rng() % 60, '\0');
      for (char& c : bytes) c = static_cast<char>(rng() % (round % 2 ? 256 : 140));
      if (name == kSmolLm2) std::erase_if(bytes, [&](char c) { return !has_letter(*tokenizer, c); });
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(bytes, kPlain)), bytes) << name << " " << round;
    }
  }
}

TEST_F(RealModel, LongWordsAndManyThreads) {
  for (const char* name : {kSmolLm2, kGemma}) {
    auto tokenizer = open(name);
    if (!tokenizer) GTEST_SKIP() << model_file(name) << " is not there (test.sh fetches it)";
    std::string word(1 << 20, 'a'), spaces(1 << 20, ' ');
    for (std::size_t i = 0; i < word.size(); i += 3) word[i] = "bcdefgh"[i % 7];
    for (const std::string& text : {word, spaces}) {
      Ids first, second;
      std::thread other([&] { second = tokenizer->encode(text, kPlain); });
      first = tokenizer->encode(text, kPlain);
      other.join();
      EXPECT_EQ(first, second);
      EXPECT_EQ(tokenizer->decode(first), text);
    }
  }
}

// ------------------------------------------------------------------------------------- small vocabularies

struct SmallVocabulary {
  std::vector<std::string> texts;
  VocabularyParts parts;
  std::vector<std::string> merge_texts;

  VocabularyParts& finish() {
    parts.tokens.assign(texts.begin(), texts.end());
    parts.merges.assign(merge_texts.begin(), merge_texts.end());
    return parts;
  }
};

SmallVocabulary small_spm() {
  SmallVocabulary v;
  v.parts.model = "llama";
  auto add = [&](std::string text, float score, int type) {
    v.texts.push_back(std::move(text));
    v.parts.scores.push_back(score);
    v.parts.types.push_back(type);
  };
  add("<unk>", 0, 2);
  add("<s>", 0, 3);
  add("</s>", 0, 3);
  char name[8];
  for (int byte = 0; byte < 256; ++byte) {
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    add(name, 0, 6);
  }
  const char* pieces[] = {"▁", "a", "b", "c", "ab", "▁a", "bc", "abc", "aa", "▁ab"};  // ids 259 …
  float score = -1;
  for (const char* piece : pieces) add(piece, score--, 1);
  add("<tool>", 0, 4);  // 269
  add("  ", 0, 4);      // 270
  v.finish();
  return v;
}

TEST(Spm, MergesBestScoreFirstThenLeftmost) {
  auto v = small_spm();
  v.parts.add_space_prefix = false;
  Tokenizer tokenizer{Vocabulary(v.parts)};
  EXPECT_THAT(tokenizer.encode("abc", kPlain), ElementsAre(266));  // ab (−5) before bc (−7), then abc
  EXPECT_THAT(tokenizer.encode("aaa", kPlain), ElementsAre(267, 260));
  EXPECT_THAT(tokenizer.encode(" abc", kPlain), ElementsAre(259, 266));  // abc (−8) before ▁ab (−10)
}

TEST(Spm, SpacePrefixBytesAndUserDefinedTokens) {
  auto v = small_spm();
  Tokenizer tokenizer{Vocabulary(v.parts)};
  EXPECT_THAT(tokenizer.encode("b"), ElementsAre(1, 259, 261));
  EXPECT_THAT(tokenizer.encode("", kPlain), ElementsAre());
  EXPECT_THAT(tokenizer.encode("é", kPlain), ElementsAre(259, 3 + 0xC3, 3 + 0xA9));
  EXPECT_THAT(tokenizer.encode("\xFF", kPlain), ElementsAre(259, 3 + 0xFF));
  EXPECT_THAT(tokenizer.encode("<tool>", kPlain), ElementsAre(269));  // even with special parsing off
  EXPECT_THAT(tokenizer.encode("c  c", kPlain), ElementsAre(259, 262, 270, 259, 262));
  EXPECT_EQ(tokenizer.decode({1, 259, 261, 2}), "b");
  EXPECT_EQ(tokenizer.piece(3 + 0xC3), "\xC3");
  EXPECT_EQ(tokenizer.piece(1, true), "<s>");
  EXPECT_EQ(tokenizer.piece(-1), "");
  EXPECT_EQ(tokenizer.piece(100000), "");
}

TEST(Spm, ControlAndByteTokensNeverComeOutOfText) {
  auto v = small_spm();
  Tokenizer tokenizer{Vocabulary(v.parts)};
  for (const char* text : {"<s>", "</s>", "<0x41>", "<unk>"}) {
    for (TokenId id : tokenizer.encode(text, kPlain)) EXPECT_EQ(tokenizer.piece(id).size(), 1u) << text;
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, kPlain)), text);
  }
  EXPECT_THAT(tokenizer.encode("b</s>", kSpecial), ElementsAre(259, 261, 2));
}

TEST(Spm, UnusedPiecesAreTakenApart) {
  auto v = small_spm();
  v.parts.add_space_prefix = false;
  v.parts.types[263] = 5;  // ab
  Tokenizer tokenizer{Vocabulary(v.parts)};
  EXPECT_THAT(tokenizer.encode("ab", kPlain), ElementsAre(260, 261));
  EXPECT_THAT(tokenizer.encode("abc", kPlain), ElementsAre(266));
}

SmallVocabulary small_bpe() {
  SmallVocabulary v;
  v.parts.model = "gpt2";
  v.parts.pre = "llama-bpe";
  for (int byte = 0; byte < 256; ++byte) {
    std::string letter;
    append_utf8(letter, byte_letter(static_cast<std::uint8_t>(byte)));
    v.texts.push_back(letter);
  }
  for (const char* text : {"ab", "abc", "bc", "xyz", "<|end|>", "<tag>", "<s>"})
    v.texts.push_back(text);  // 256 …
  v.parts.types.assign(256 + 7, 1);
  v.parts.types[260] = 3;
  v.parts.types[261] = 4;
  v.parts.types[262] = 3;
  v.merge_texts = {"b c", "a b", "a bc"};
  v.parts.bos = 262;
  v.parts.eos = 260;
  v.finish();
  return v;
}

TEST(Bpe, RanksWholeWordsAndSpecialTokens) {
  auto v = small_bpe();
  Tokenizer tokenizer{Vocabulary(v.parts)};
  EXPECT_THAT(tokenizer.encode("abc"), ElementsAre(262, 257));            // BOS: llama-bpe's default
  EXPECT_THAT(tokenizer.encode("abcab", kPlain), ElementsAre(257, 256));  // bc first, then a+bc
  EXPECT_THAT(tokenizer.encode("xyz", kPlain), ElementsAre(259));         // no merge makes it: taken whole
  EXPECT_THAT(tokenizer.encode("a<tag>", kPlain), ElementsAre('a', 261));
  EXPECT_THAT(tokenizer.encode("<|end|>", kPlain).size(), 7u);
  EXPECT_THAT(tokenizer.encode("<|end|>", kSpecial), ElementsAre(260));
  EXPECT_TRUE(tokenizer.is_end(260));
  v.parts.ignore_merges = false;
  v.parts.add_bos = false;
  v.parts.add_eos = true;
  Tokenizer merging{Vocabulary(v.parts)};
  EXPECT_EQ(merging.encode("xyz", kPlain).size(), 3u);
  EXPECT_EQ(merging.encode("").back(), 260);
}

TEST(CharacterBpe, UnderlinesRanksBytesAndForcedBos) {
  SmallVocabulary v = small_spm();
  v.parts.model = "gemma4";
  v.parts.scores.clear();
  v.parts.add_bos = false;  // such files say so by mistake
  v.merge_texts = {"b c", "a b", "▁ a", "▁a b", "a bc"};
  v.finish();
  Tokenizer tokenizer{Vocabulary(v.parts)};
  EXPECT_THAT(tokenizer.encode("abc"), ElementsAre(1, 266));
  EXPECT_THAT(tokenizer.encode(" ab", kPlain),
              ElementsAre(259, 263));  // a+b before ▁+a, and no rule for ▁+ab
  EXPECT_THAT(tokenizer.encode("aé\nb", kPlain), ElementsAre(260, 3 + 0xC3, 3 + 0xA9, 3 + '\n', 261));
  EXPECT_THAT(tokenizer.encode("<s>  ", kPlain), ElementsAre(3 + '<', 3 + 's', 3 + '>', 270));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(" a b\n\n\xFF c", kPlain)), " a b\n\n\xFF c");
}

TEST(Vocabulary, PreTokenizersByName) {
  auto v = small_bpe();
  v.parts.pre = "";
  EXPECT_TRUE(Vocabulary(v.parts).pre_missing());
  EXPECT_EQ(Vocabulary(v.parts).pre(), "default");
  v.parts.pre = "no-such-thing";
  try {
    Vocabulary bad(v.parts);
    FAIL() << "an unknown pre-tokenizer was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::unsupported);
    EXPECT_THAT(error.what(), HasSubstr("\"no-such-thing\""));
  }
  for (const char* name :
       {"default",          "llama-bpe",  "llama3",     "qwen2",        "qwen35",         "gpt-2",
        "gpt-4o",           "llama4",     "tekken",     "deepseek-llm", "deepseek-coder", "deepseek-v3",
        "deepseek-r1-qwen", "smollm",     "starcoder",  "refact",       "command-r",      "dbrx",
        "falcon",           "mpt",        "glm4",       "chatglm-bpe",  "kimi-k2",        "bloom",
        "viking",           "seed-coder", "bailingmoe", "youtu",        "afmoe",          "exaone-moe",
        "chameleon",        "superbpe",   "jais-2",     "glm5",         "talkie",         "mellum2"}) {
    v.parts.pre = name;
    Tokenizer tokenizer{Vocabulary(v.parts)};
    std::string text =
        "It's 12345 abcABC día\r\n\n  日本語 がカ 한국 ½ \xFF\xC3 a  b\t\t x👍🏽 ''!!\u00a0Ω ";
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, kPlain)), text) << name;
  }
}

std::string refused(VocabularyParts parts) {
  try {
    Vocabulary vocabulary(parts);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Vocabulary, RefusesWhatDoesNotFitTogether) {
  auto spm = small_spm();
  auto parts = spm.parts;
  parts.bos = 271;
  EXPECT_EQ(refused(parts), "tokenizer.ggml.bos_token_id is 271, but the vocabulary has 271 tokens");
  parts = spm.parts, parts.eos = -5, parts.types[2] = 1;  // no other token ends an answer
  EXPECT_THAT(refused(parts), HasSubstr("eos_token_id is -5"));
  parts = spm.parts, parts.eos = 5000, parts.add_eos = true;  // an encoding needs it
  EXPECT_THAT(refused(parts), HasSubstr("eos_token_id is 5000"));
  parts = spm.parts, parts.scores.pop_back();
  EXPECT_THAT(refused(parts), HasSubstr("271 tokens but 270 scores"));
  parts = spm.parts, parts.types.pop_back();
  EXPECT_THAT(refused(parts), HasSubstr("271 tokens but 270 token types"));
  parts = spm.parts, parts.types[0] = 9;
  EXPECT_THAT(refused(parts), HasSubstr("unknown type 9"));
  parts = spm.parts, parts.tokens[3] = "<0x-1>";
  EXPECT_THAT(refused(parts), HasSubstr("\"<0x-1>\" is not of the form"));
  parts = spm.parts, parts.scores[5] = NAN;
  EXPECT_THAT(refused(parts), HasSubstr("not a number"));
  parts = spm.parts, parts.tokens.clear();
  EXPECT_THAT(refused(parts), HasSubstr("no tokens"));
  parts = spm.parts, parts.model = "bert";
  EXPECT_THAT(refused(parts), HasSubstr("\"bert\" is not supported"));
  auto bpe = small_bpe();
  bpe.parts.merges[1] = "nospace";
  EXPECT_THAT(refused(bpe.parts), HasSubstr("merge 1 (\"nospace\")"));
}

TEST(Vocabulary, IdsOutOfRangeThatNoEncodingNeedsCountAsNone) {
  const SmallVocabulary spm = small_spm();
  VocabularyParts parts = spm.parts;
  parts.padding = 271, parts.separator = 4000000000, parts.eot = 300;
  const Vocabulary padded(parts);
  EXPECT_EQ(padded.padding(), kNoToken);
  ASSERT_EQ(padded.notes().size(), 3u);
  EXPECT_EQ(padded.notes()[0],
            "tokenizer.ggml.padding_token_id is 271, but the vocabulary has 271 tokens: it counts as none");
  parts = spm.parts, parts.eos = 5000;  // </s> is known to end answers
  EXPECT_THAT(Vocabulary(parts).end_tokens(), ElementsAre(2));
  parts = spm.parts, parts.bos = 5000, parts.add_bos = false;
  EXPECT_EQ(Vocabulary(parts).bos(), kNoToken);
  parts = spm.parts, parts.bos = kNoToken;  // "none" is none, also where the model's kind wants one
  EXPECT_THAT(Tokenizer{Vocabulary(parts)}.encode("b"), ElementsAre(259, 261));
  EXPECT_THAT(Vocabulary(parts).notes(), ElementsAre());
}

TEST(Vocabulary, EndTokensByText) {
  auto v = small_bpe();
  v.texts.insert(v.texts.end(), {"<|return|>", "<|call|>"});
  v.parts.types.insert(v.parts.types.end(), {3, 3});
  v.parts.eos = 263;
  v.finish();
  Vocabulary harmony(v.parts);
  EXPECT_FALSE(harmony.is_end(260));  // <|end|> only ends a message there
  EXPECT_THAT(harmony.end_tokens(), ElementsAre(263, 264));
}

TEST(Vocabulary, NoneEncodesNothing) {
  Tokenizer tokenizer{Vocabulary(VocabularyParts{})};
  EXPECT_EQ(tokenizer.size(), 0);
  EXPECT_THROW(tokenizer.encode("a"), Error);
}

// Texts that all had one value under the hash that was used before, whatever was added to it. Once quadratic:
// minutes.
TEST(Vocabulary, TokensMadeToCollideTakeLinearTime) {
  constexpr std::uint64_t kFactor = 0xFF51AFD7ED558CCDu, kSeed = 16 * 0x9E3779B97F4A7C15u;
  std::vector<std::string> texts;
  std::mt19937_64 random(1);
  for (int i = 0; i < 150000; ++i) {
    std::uint64_t words[2] = {random(), 0};
    std::uint64_t h = (kSeed ^ words[0]) * kFactor;
    h ^= h >> 32;
    words[1] = h ^ 0x123456789abcdefu;
    texts.emplace_back(reinterpret_cast<const char*>(words), sizeof words);
  }
  VocabularyParts parts;
  parts.model = "llama";
  parts.tokens.assign(texts.begin(), texts.end());
  const Vocabulary vocabulary(parts);
  EXPECT_EQ(vocabulary.find(texts[77777]), 77777);
  EXPECT_EQ(vocabulary.find("nothing"), kNoToken);
}

}  // namespace
}  // namespace steelyard
