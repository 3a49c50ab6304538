#include "store/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "base/error.h"
#include "store/model_name.h"

namespace steelyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string digest(char c) { return "sha256:" + std::string(64, c); }

std::string single(char model, const std::string& more = "") {
  return R"({"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", )" +
         more + R"("config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": ")" +
         digest('c') + R"(", "size": 7}, "layers": [{"mediaType": "application/vnd.ollama.image.model", )" +
         R"("digest": ")" + digest(model) + R"(", "size": 100}]})";
}

std::string list_of(const std::string& entries) {
  return R"({"schemaVersion": 2, "mediaType": "application/vnd.ollama.manifest.list.v2+json", "manifests": [)" +
         entries + "]}";
}

std::string reference(char c, const std::string& runner) {
  return R"({"mediaType": "application/vnd.docker.distribution.manifest.v2+json", "digest": ")" + digest(c) +
         R"(", "runner": ")" + runner + R"(", "format": "gguf"})";
}

TEST(ModelName, HasDefaultsForWhatIsNotSaid) {
  const auto name = parse_model_name("llama3.2");
  ASSERT_TRUE(name);
  EXPECT_EQ(name->path(), "registry.ollama.ai/library/llama3.2/latest");
  for (const auto& [asked, shown] :
       std::map<std::string, std::string>{{"llama3.2:latest", "llama3.2"},
                                          {"registry.ollama.ai/library/llama3.2:1b", "llama3.2:1b"},
                                          {"someone/tuned", "someone/tuned"},
                                          {"hf.co/org/repo:Q4_K_M", "hf.co/org/repo:Q4_K_M"},
                                          {"https://hf.co/org/repo", "hf.co/org/repo"},
                                          {"localhost:5000/a/b:c", "localhost:5000/a/b:c"}}) {
    ASSERT_TRUE(parse_model_name(asked)) << asked;
    EXPECT_EQ(parse_model_name(asked)->text(), shown);
    EXPECT_EQ(model_name_of(parse_model_name(asked)->path()), parse_model_name(asked)) << asked;
  }
  EXPECT_TRUE(parse_model_name("hf.co/org/repo")->on_hugging_face());
}

TEST(ModelName, IsNeverAPath) {
  for (const char* text : {"",    "..",   "a/..",  "../a",     "a/../b", "/a",   "a/",   "a//b", "a/b/c/d",
                           "a:",  ":a",   "a:..",  "a:b/c",    "a:b:c",  "a\\b", ".a",   "a/.b", "-a",
                           "a b", "a\nb", "a%2fb", "\xc3\xa9", "./a",    "a:.b", "..:.."})
    EXPECT_FALSE(parse_model_name(text)) << text;
  EXPECT_FALSE(parse_model_name(std::string_view("a\0b", 3)));
  EXPECT_FALSE(parse_model_name(std::string(129, 'a')));
  EXPECT_FALSE(model_name_of("a/b/c"));
  EXPECT_FALSE(model_name_of("a/b/../d"));
}

TEST(Digest, IsOfOneForm) {
  EXPECT_TRUE(is_digest(digest('a')));
  EXPECT_EQ(canonical_digest("sha256-" + std::string(64, 'A')), digest('a'));
  EXPECT_EQ(blob_file_name(digest('0')), "sha256-" + std::string(64, '0'));
  for (const std::string& text :
       {std::string(), std::string("sha256:"), std::string(64, 'a'), "sha256:" + std::string(63, 'a'),
        "sha256:" + std::string(65, 'a'), "sha256:" + std::string(64, 'g'), "md5:" + std::string(64, 'a'),
        "sha256:../../" + std::string(58, 'a'), "sha256/" + std::string(64, 'a'), digest('a') + "\n"})
    EXPECT_FALSE(canonical_digest(text)) << text;
}

TEST(Manifest, IsReadAndWritten) {
  const Manifest m = parse_manifest(single('a'), "x");
  EXPECT_EQ(m.find(kModelLayer)->digest, digest('a'));
  EXPECT_EQ(m.find(kSystemLayer), nullptr);
  EXPECT_EQ(m.bytes(), 107u);
  EXPECT_THAT(m.digests(), ElementsAre(digest('a'), digest('c')));
  const Manifest again = parse_manifest(manifest_text(m), "x");
  EXPECT_EQ(again.digests(), m.digests());
  EXPECT_EQ(again.config.size, 7u);
}

TEST(Manifest, OfAListTheOneForLlamaCppCounts) {
  const std::map<std::string, std::string> blobs = {
      {digest('1'), single('a')}, {digest('2'), single('b')}, {digest('3'), single('d')}};
  BlobSource source;
  source.read = [&](const std::string& d) { return blobs.contains(d) ? blobs.at(d) : std::string(); };
  const std::string list =
      list_of(reference('1', "mlx") + "," + reference('2', "ollama") + "," + reference('3', "llamacpp"));
  Manifest m = parse_manifest(list, "x", source);
  EXPECT_EQ(m.find(kModelLayer)->digest, digest('d'));
  // What a list refers to is kept as long as the list is.
  EXPECT_THAT(m.digests(), ElementsAre(digest('1'), digest('2'), digest('3'), digest('a'), digest('b'),
                                       digest('c'), digest('d')));
  source.has = [](const std::string& d) { return d == digest('b'); };  // the other's model isn't there
  EXPECT_EQ(parse_manifest(list, "x", source).find(kModelLayer)->digest, digest('b'));
  // Manifests may also stand in the list itself; those that aren't there don't count.
  m = parse_manifest(list_of(reference('9', "llamacpp") + "," + single('e', R"("runner": "ollama", )")), "x",
                     source);
  EXPECT_EQ(m.find(kModelLayer)->digest, digest('e'));
  EXPECT_THROW(parse_manifest(list_of(reference('1', "mlx")), "x", source), Error);
  EXPECT_THROW(parse_manifest(list_of(""), "x", source), Error);
}

TEST(Manifest, NonsenseIsNamed) {
  const std::string good = single('a');
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    return text.replace(text.find(from), from.size(), to);
  };
  for (const std::string& text :
       {std::string(), std::string("[]"), std::string("{"), std::string("{}"), std::string("\"\""),
        with(digest('a'), "sha256:../../../etc/passwd"), with("\"size\": 100", "\"size\": -1"),
        with("\"size\": 100", "\"size\": 1e300"), with("\"size\": 100", "\"size\": 18446744073709551615"),
        with("\"layers\": [", "\"layers\": [1, "), with("\"layers\": [", "\"layers\": [[], "),
        with("\"layers\": [", "\"layer\": ["), std::string(100000, '['), std::string(R"({"manifests": {}})"),
        std::string(R"({"manifests": [[[]]]})")}) {
    try {
      parse_manifest(text, "some model");
      ADD_FAILURE() << text;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::bad_input);
      EXPECT_THAT(e.what(), HasSubstr("the manifest of some model can't be used")) << text;
    }
  }
}

}  // namespace
}  // namespace steelyard
