#include "store/store_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/error.h"
#include "base/temporary_folder.h"
#include "gguf/writer.h"
#include "store/ollama.h"
#include "store/store.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class StoreFolderTest : public ::testing::Test {
 protected:
  ModelName name(std::string_view text) const { return *parse_model_name(text); }
  // A small model in GGUF, of its own for each number.
  Layer model(std::uint32_t number) {
    const fs::path file = root_ / "model.gguf";
    GgufWriter w(file);
    w.add_string("general.architecture", "llama");
    w.add_u32("number", number);
    w.add_tensor("w", std::array<std::uint64_t, 2>{32, 4}, DType::Q4_1);
    w.write(std::vector<std::byte>(80));
    w.finish();
    std::ifstream in(file, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(in), {}};
    fs::remove(file);
    return folder_.add_blob(kModelLayer, bytes);
  }
  void write(std::string_view as, std::vector<Layer> layers) {
    Manifest m;
    m.config = folder_.add_blob("config", "{}");
    m.layers = std::move(layers);
    folder_.write_manifest(name(as), manifest_text(m));
  }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const OllamaModel& m : ollama_models(folder_.path())) all.push_back(m.name.text());
    return all;
  }
  std::vector<std::string> files(const char* below) const {
    std::vector<std::string> all;
    for (const auto& entry : fs::directory_iterator(folder_.path() / below))
      all.push_back(entry.path().filename().string());
    return all;
  }

  const TemporaryFolder temporary_{"folder"};
  const fs::path root_ = temporary_.path();
  const StoreFolder folder_{root_ / "models"};
};

TEST_F(StoreFolderTest, KeepsWhatAModelBringsAlong) {
  write("tuned:1b",
        {model(1), folder_.add_blob(kSystemLayer, "be brief"),
         folder_.add_blob(kParamsLayer, R"({"temperature": 0.5})"),
         folder_.add_blob(kMessagesLayer, R"([{"role": "user", "content": "hi"}])"),
         folder_.add_blob(kTemplateLayer, "{{ .Prompt }}"), folder_.add_blob(kLicenseLayer, "MIT")});
  const ModelStore store({folder_.path()});
  EXPECT_EQ(store.find("tuned:1b").architecture, "llama");
  const ModelDefaults defaults = store.defaults("tuned");  // an unambiguous beginning will do
  EXPECT_EQ(defaults.system, "be brief");
  EXPECT_EQ(defaults.parameters, R"({"temperature": 0.5})");
  EXPECT_EQ(defaults.messages, R"([{"role": "user", "content": "hi"}])");
  EXPECT_EQ(defaults.chat_template, "{{ .Prompt }}");
  EXPECT_THAT(defaults.licenses, ElementsAre("MIT"));
  // A layer that was changed is none.
  std::ofstream(folder_.blob_path(folder_.add_blob(kSystemLayer, "be brief").digest)) << "be evil";
  EXPECT_EQ(store.defaults("tuned").system, "");
}

TEST_F(StoreFolderTest, ABlobGoesWithItsLastModel) {
  const Layer shared = model(1), own = folder_.add_blob(kSystemLayer, "a");
  write("a", {shared, own});
  write("b", {shared});
  const ModelStore store({folder_.path()});
  store.remove("a");
  EXPECT_THAT(names(), ElementsAre("b"));
  EXPECT_TRUE(folder_.has_blob(shared.digest));
  EXPECT_FALSE(folder_.has_blob(own.digest));
  EXPECT_EQ(store.find("b").error, "");
  store.remove("library/B:latest");
  EXPECT_THAT(files("blobs"), IsEmpty());
  EXPECT_THAT(files("manifests"), IsEmpty());  // without empty folders, too
}

TEST_F(StoreFolderTest, ABlobStaysWhereAManifestCanNotBeRead) {
  const Layer shared = model(1);
  write("a", {shared});
  write("b", {model(2)});
  std::ofstream(folder_.path() / "manifests" / name("b").path()) << "no JSON";
  ModelStore({folder_.path()}).remove("a");
  EXPECT_TRUE(folder_.has_blob(shared.digest));  // the other may be made of it
}

TEST_F(StoreFolderTest, RemovesWholeNamesOnly) {
  write("llama:1b", {model(1)});
  const ModelStore store({folder_.path()});
  EXPECT_EQ(store.find("llama").name, "llama:1b");  // found by its beginning
  EXPECT_THROW(store.remove("llama"), Error);       // but not removed by it
  for (const char* odd : {"", "..", "../llama:1b", "/llama:1b", "llama:1b/",
                          "registry.ollama.ai/library/../x", "manifests/registry.ollama.ai/library/llama/1b"})
    EXPECT_THROW(store.remove(odd), Error) << odd;
  EXPECT_THAT(names(), ElementsAre("llama:1b"));
}

TEST_F(StoreFolderTest, CopiesUnderAnotherName) {
  write("a", {model(1), folder_.add_blob(kSystemLayer, "s")});
  const ModelStore store({folder_.path()});
  store.copy("a", "me/b:2");
  EXPECT_THAT(names(), UnorderedElementsAre("a", "me/b:2"));
  EXPECT_EQ(store.find("me/b:2").digest, store.find("a").digest);
  EXPECT_EQ(store.defaults("me/b:2").system, "s");
  for (const char* odd : {"", "..", "../b", "/b", "a/b/c/d", "b:", "a b", "-b"})
    EXPECT_THROW(store.copy("a", odd), Error) << odd;
  EXPECT_THROW(store.copy("nobody", "b"), Error);
  store.remove("a");
  EXPECT_EQ(store.find("me/b:2").error, "");
}

TEST_F(StoreFolderTest, ReadsAndRemovesTheNewerForm) {
  const Layer weights = model(1);
  Manifest m;
  m.config = folder_.add_blob("config", "{}");
  m.layers = {weights};
  const Layer child = folder_.add_blob("manifest", manifest_text(m));
  const Layer list = folder_.add_blob(
      "manifest", R"({"schemaVersion": 2, "mediaType": "application/vnd.ollama.manifest.list.v2+json",)"
                  R"( "manifests": [{"mediaType": "application/vnd.docker.distribution.manifest.v2+json",)"
                  R"( "digest": ")" +
                      child.digest + R"(", "runner": "llamacpp", "format": "gguf"}]})");
  const fs::path link = folder_.path() / "manifests-v2" / name("new").path();
  fs::create_directories(link.parent_path());
  fs::create_symlink(fs::relative(folder_.blob_path(list.digest), link.parent_path()), link);
  const ModelStore store({folder_.path()});
  EXPECT_EQ(store.find("new").error, "");
  EXPECT_EQ("sha256:" + store.find("new").digest, list.digest);
  store.copy("new", "copy");
  store.remove("new");
  EXPECT_EQ(store.find("copy").error, "");
  store.remove("copy");
  EXPECT_THAT(files("blobs"), IsEmpty());
}

TEST_F(StoreFolderTest, ALinkInPlaceOfAManifestIsRemovedNotFollowed) {
  const fs::path outside = root_ / "outside";
  std::ofstream(outside) << "mine";
  write("a", {model(1)});
  const fs::path link = folder_.path() / "manifests" / name("b").path();
  fs::create_directories(link.parent_path());
  fs::create_symlink(outside, link);
  folder_.remove(name("b"));
  EXPECT_TRUE(fs::exists(outside));
  EXPECT_FALSE(fs::is_symlink(link));
  fs::create_directories(link.parent_path());
  fs::create_symlink(outside, link);
  folder_.copy(name("a"), name("b"));  // takes the link's place
  std::ifstream file(outside);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "mine");
  EXPECT_THAT(names(), UnorderedElementsAre("a", "b"));
}

TEST_F(StoreFolderTest, AManifestNeedsItsBlobs) {
  Manifest m;
  m.config = folder_.add_blob("config", "{}");
  m.layers = {{layer_media_type(kModelLayer), "sha256:" + std::string(64, 'a'), 5}};
  EXPECT_THROW(folder_.write_manifest(name("a"), manifest_text(m)), Error);
  EXPECT_THAT(names(), IsEmpty());
}

TEST_F(StoreFolderTest, ABlobOfAnotherDigestLeavesNothing) {
  folder_.make();
  const auto bytes = std::as_bytes(std::span(std::string_view("abc")));
  {
    BlobWriter wrong(folder_);
    wrong.write(bytes);
    EXPECT_THROW(wrong.finish("sha256:" + std::string(64, 'a')), Error);
    const BlobWriter unfinished(folder_);
  }
  EXPECT_THAT(files("blobs"), IsEmpty());
  BlobWriter right(folder_);
  right.write(bytes.first(1));
  right.write(bytes.subspan(1));
  EXPECT_EQ(right.finish(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_THAT(files("blobs"),
              ElementsAre("sha256-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
}

}  // namespace
}  // namespace steelyard
