#include "store/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/temporary_folder.h"
#include "gguf/writer.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(root_ / "own");
    fs::create_directories(root_ / "cache");
  }

  fs::path write(const fs::path& path, std::uint16_t number = 0, std::uint16_t count = 1) {
    GgufWriter w(root_ / path);
    if (number == 0) w.add_string("general.architecture", "llama");
    w.add_u32("general.file_type", 3);
    if (count > 1) w.add_u16("split.no", number), w.add_u16("split.count", count);
    w.add_tensor("w" + std::to_string(number), std::array<std::uint64_t, 2>{32, 4}, DType::Q4_1);
    w.write(std::vector<std::byte>(80));
    w.finish();
    return root_ / path;
  }
  ModelStore store() const { return ModelStore({root_ / "own", root_ / "absent", root_ / "cache"}); }
  std::string failure(const std::string& name, ErrorKind kind) const {
    try {
      const fs::path found = store().resolve(name);
      ADD_FAILURE() << name << " gave " << found;
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.kind()), static_cast<int>(kind)) << error.what();
      return error.what();
    }
    return "";
  }

  const TemporaryFolder temporary_{"store"};
  const fs::path root_ = temporary_.path();
};

TEST_F(StoreTest, ListsModelsOfAllDirectories) {
  write("cache/SmolLM2-135M-Instruct.Q4_1.gguf");
  write("own/beta.gguf");
  write("own/big-00001-of-00002.gguf", 0, 2);
  write("own/big-00002-of-00002.gguf", 1, 2);
  std::ofstream(root_ / "own/alpha.gguf") << "no model";
  std::ofstream(root_ / "own/notes.txt") << "no model either";
  fs::create_directories(root_ / "own/directory.gguf");
  const std::vector<StoredModel> models = store().list();
  ASSERT_EQ(models.size(), 4u);
  EXPECT_EQ(models[0].name, "alpha");
  EXPECT_THAT(models[0].error, HasSubstr("is not a GGUF file"));
  EXPECT_EQ(models[0].bytes, 8u);
  EXPECT_EQ(models[1].name, "beta");
  EXPECT_EQ(models[1].error, "");
  EXPECT_EQ(models[1].architecture, "llama");
  EXPECT_EQ(models[1].parameters, 128u);
  EXPECT_EQ(models[1].quantization, "Q4_1");
  EXPECT_GT(models[1].modified, std::chrono::system_clock::now() - std::chrono::hours(1));
  EXPECT_EQ(models[2].name, "big");
  EXPECT_EQ(models[2].parameters, 256u);
  EXPECT_EQ(models[2].bytes, fs::file_size(root_ / "own/big-00001-of-00002.gguf") +
                                 fs::file_size(root_ / "own/big-00002-of-00002.gguf"));
  EXPECT_EQ(models[3].name, "SmolLM2-135M-Instruct.Q4_1");
}

TEST_F(StoreTest, ADigestIsTheFilesUntilItChanges) {
  const fs::path file = write("own/alpha.gguf");
  write("own/beta.gguf");
  const auto digest = [&](std::size_t i) { return store().list().at(i).digest; };
  const std::string before = digest(0);
  EXPECT_EQ(before.size(), 64u);
  EXPECT_EQ(digest(0), before);
  EXPECT_NE(digest(1), before);
  fs::last_write_time(file, fs::last_write_time(file) + std::chrono::seconds(1));
  EXPECT_NE(digest(0), before);
}

TEST_F(StoreTest, ResolvesNamesWithoutCaseAndByBeginning) {
  const fs::path smol = write("cache/SmolLM2-135M-Instruct.Q4_1.gguf");
  const fs::path gemma = write("cache/gemma-3-270m-q4_k_m.gguf");
  const fs::path big = write("own/big-00001-of-00002.gguf", 0, 2);
  write("own/big-00002-of-00002.gguf", 1, 2);
  for (const char* name :
       {"smollm2", "SmolLM2", "smollm2:135m", "smollm2:latest", "SMOLLM2-135M-instruct.q4_1",
        "SmolLM2-135M-Instruct.Q4_1.gguf", "library/smollm2", "s", "smollm2:instruct"})
    EXPECT_EQ(store().resolve(name), smol) << name;
  EXPECT_EQ(store().resolve("gemma-3"), gemma);
  EXPECT_EQ(store().resolve("gemma:270m"), gemma);
  EXPECT_EQ(store().resolve("big"), big);
  EXPECT_EQ(store().resolve(smol.string()), smol);
  EXPECT_EQ(store().find("gemma").name, "gemma-3-270m-q4_k_m");
}

TEST_F(StoreTest, AWholeNameWinsAndEarlierDirectoriesToo) {
  const fs::path own = write("own/qwen.gguf");
  write("cache/Qwen.gguf");
  write("own/qwen-7b.gguf");
  EXPECT_EQ(store().resolve("qwen"), own);
  EXPECT_EQ(store().resolve("qwen:7b"), root_ / "own/qwen-7b.gguf");
  EXPECT_EQ(store().list().size(), 2u);
}

TEST_F(StoreTest, SearchesNestedFoldersAndLinks) {
  fs::create_directories(root_ / "own/publisher/repository");
  write("own/publisher/repository/studio.gguf");
  write("own/publisher/repository/mmproj-studio.gguf");
  const fs::path hub = root_ / "cache/models--someone--hub";
  fs::create_directories(hub / "blobs");
  fs::create_directories(hub / "snapshots/0123");
  fs::rename(write("outside.gguf"), hub / "blobs/abc");
  fs::create_symlink("../../blobs/abc", hub / "snapshots/0123/hub.gguf");
  fs::create_directory_symlink("..", hub / "snapshots/ring");
  fs::create_directories(root_ / "own/.hidden");
  write("own/.hidden/secret.gguf");
  fs::create_directories(root_ / "own/1/2/3/4/5/6");
  write("own/1/2/3/4/5/6/deep.gguf");
  std::vector<std::string> names;
  for (const StoredModel& m : store().list()) names.push_back(m.name + m.error);
  EXPECT_THAT(names, ::testing::ElementsAre("hub", "studio"));
  EXPECT_EQ(store().resolve("hub"), hub / "snapshots/0123/hub.gguf");
}

TEST_F(StoreTest, FindsEveryNameThatItLists) {
  for (const char* name : {"my model (1)", "a [b] {c}", "\xc3\xbc\xc3\xb1\xc3\xad \xe6\xa8\xa1\xe5\x9e\x8b",
                           "x:y", "100%", "q?", "it's", "\"quoted\"", "-dash", "(p)", "a\xff"})
    write(fs::path("own") / (std::string(name) + ".gguf"));
  write("own/part-00001-of-00002 (1).gguf", 0, 2);
  write("own/part-00002-of-00002.gguf", 1, 2);
  const std::vector<StoredModel> models = store().list();
  ASSERT_EQ(models.size(), 12u);
  for (const StoredModel& m : models) {
    EXPECT_EQ(m.error, "");
    EXPECT_EQ(store().resolve(m.name), m.path) << m.name;
    EXPECT_EQ(store().find(m.name).path, m.path) << m.name;
  }
}

TEST_F(StoreTest, ReadsOllamasFolder) {
  const std::string hex(64, 'a');
  const fs::path ollama = root_ / "own", blob = ollama / "blobs" / ("sha256-" + hex);
  fs::create_directories(ollama / "blobs");
  fs::rename(write("outside.gguf"), blob);
  const auto manifest = [&](const fs::path& place, const std::string& digest) {
    const fs::path path = ollama / "manifests" / place;
    fs::create_directories(path.parent_path());
    std::ofstream(path)
        << R"({"layers": [{"mediaType": "application/vnd.ollama.image.license", "size": 1, "digest": "sha256:)"
        << std::string(64, 'c')
        << R"("}, {"mediaType": "application/vnd.ollama.image.model", "size": 5, "digest": ")" << digest
        << R"("}]})";
    return path;
  };
  manifest("registry.ollama.ai/library/llama3.2/latest", "sha256:" + hex);
  manifest("registry.ollama.ai/library/llama3.2/1b", "sha256:" + hex);
  manifest("registry.ollama.ai/someone/tuned/8b", "sha256:" + hex);
  manifest("hf.co/org/repo-GGUF/Q4_K_M", "sha256:" + hex);
  manifest("localhost:5000/library/mine/latest", "sha256:" + hex);
  manifest("registry.ollama.ai/library/gone/1b", "sha256:" + std::string(64, 'b'));
  manifest("registry.ollama.ai/library/evil/1b", "sha256:../../outside");
  std::ofstream(manifest("registry.ollama.ai/library/broken/1b", "")) << "no JSON";
  std::vector<std::string> names;
  for (const StoredModel& m : store().list()) {
    names.push_back(m.name);
    EXPECT_EQ(m.error, "");
    EXPECT_EQ(store().find(m.name).path, blob);
  }
  EXPECT_THAT(names, ::testing::ElementsAre("hf.co/org/repo-GGUF:Q4_K_M", "llama3.2", "llama3.2:1b",
                                            "localhost:5000/library/mine", "someone/tuned:8b"));
  for (const char* same :
       {"llama3.2:latest", "library/llama3.2", "registry.ollama.ai/library/llama3.2:latest", "Llama3.2",
        "HF.co/org/repo-gguf:q4_k_m"})
    EXPECT_EQ(store().find(same).path, blob) << same;
  std::ifstream file(ollama / "manifests/registry.ollama.ai/library/llama3.2/latest");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(store().find("llama3.2").digest, sha256_hex(text));  // as Ollama has it
  EXPECT_EQ(store().find("llama3.2").bytes, 6u);
}

TEST_F(StoreTest, PlainFilesLieBesideManifests) {
  const fs::path plain = write("own/plain.gguf");
  fs::create_directories(root_ / "own/blobs");
  fs::create_directories(root_ / "own/manifests");
  EXPECT_EQ(store().find("plain").path, plain);
  try {
    store().remove("plain");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::unsupported);
    EXPECT_THAT(e.what(), HasSubstr("'plain' is a plain file"));
    EXPECT_THAT(std::string(e.what()), ::testing::Not(HasSubstr(root_.string())));
  }
  EXPECT_THROW(store().copy("plain", "other"), Error);
  EXPECT_TRUE(fs::exists(plain));
}

TEST_F(StoreTest, ExplainsWhatItCannotFind) {
  write("own/qwen-7b.gguf");
  write("own/qwen-32b.gguf");
  write("own/smollm2.gguf");
  EXPECT_THAT(failure("qwen", ErrorKind::bad_input),
              HasSubstr("'qwen' may mean qwen-32b or qwen-7b; give more"));
  EXPECT_THAT(failure("smolm2", ErrorKind::not_found), HasSubstr("no model 'smolm2'; did you mean smollm2?"));
  EXPECT_THAT(failure("7b", ErrorKind::not_found), HasSubstr("did you mean qwen-7b?"));
  EXPECT_THAT(failure("zzzzzzzz", ErrorKind::not_found),
              AllOf(HasSubstr("neither a file nor a model in"), HasSubstr("own")));
  EXPECT_THAT(failure("qwen:1b", ErrorKind::not_found), HasSubstr("did you mean"));
  EXPECT_THAT(failure("", ErrorKind::bad_input), HasSubstr("empty"));
  EXPECT_THAT(failure("./no/such.gguf", ErrorKind::not_found), HasSubstr("no file ./no/such.gguf"));
  EXPECT_THAT(failure((root_ / "own").string(), ErrorKind::bad_input), HasSubstr("is a directory"));
}

TEST_F(StoreTest, NamesFromTheNetworkStayInside) {
  write("own/model.gguf");
  const fs::path outside = write("outside.gguf");
  EXPECT_THROW(store().find("../outside"), Error);
  EXPECT_THROW(store().find(outside.string()), Error);
  EXPECT_THROW(store().find("own/../../outside"), Error);
  EXPECT_EQ(store().find("model").path, root_ / "own/model.gguf");
  for (const char* name : {"a", "smollm2:135m", "library/qwen2.5:7b-q4_K_M", "A_b-c.d", "a b", "caf\xc3\xa9",
                           "hf.co/org/repo:Q4_K_M", "localhost:5000/a/b:c", "my model (1) [new]",
                           "\xe6\xa8\xa1\xe5\x9e\x8b", "a..b"})
    EXPECT_TRUE(ModelStore::valid_name(name)) << name;
  for (const char* name : {"", "..", "a/../b", "/a", "a/", "a//b", "a/b/c/d", ".hidden", "a:", ":a", "a\nb",
                           "a\\b", "~/x", "a/.b", "a\xff"})
    EXPECT_FALSE(ModelStore::valid_name(name)) << name;
  EXPECT_FALSE(ModelStore::valid_name(std::string(256, 'a')));
  EXPECT_FALSE(ModelStore::valid_name(std::string_view("a\0b", 3)));
}

TEST(StoreEnvironment, FollowsTheVariables) {
  constexpr const char* kVariables[] = {"HOME",           "STEELYARD_MODELS", "XDG_DATA_HOME",
                                        "XDG_CACHE_HOME", "OLLAMA_MODELS",    "HF_HOME",
                                        "HF_HUB_CACHE",   "LLAMA_CACHE"};
  const auto set = [](const char* name, const char* value) {
    if (value == nullptr) {
      unsetenv(name);
    } else {
      setenv(name, value, 1);
    }
  };
  std::vector<std::pair<std::string, std::string>> saved;
  for (const char* name : kVariables) {
    if (const char* value = std::getenv(name)) saved.emplace_back(name, value);
    unsetenv(name);
  }
  EXPECT_THAT(ModelStore::from_environment().directories(), ::testing::ElementsAre());
  set("HOME", "/home/someone");
  EXPECT_THAT(ModelStore::from_environment().directories(),
              ::testing::ElementsAre(
                  "/home/someone/.local/share/steelyard/models", "/home/someone/.cache/steelyard/models",
                  "/home/someone/.local/share/strata/models", "/home/someone/.cache/strata/models",
                  "/home/someone/.ollama/models/", "/home/someone/.cache/huggingface/hub",
                  "/home/someone/.lmstudio/models", "/home/someone/.cache/llama.cpp/"));
  set("XDG_DATA_HOME", "/data");
  set("XDG_CACHE_HOME", "/cache");
  set("OLLAMA_MODELS", "/ollama");
  set("HF_HOME", "/hugging");
  set("LLAMA_CACHE", "/llama");
  EXPECT_THAT(ModelStore::from_environment().directories(),
              ::testing::ElementsAre("/data/steelyard/models", "/cache/steelyard/models",
                                     "/data/strata/models", "/cache/strata/models", "/ollama/",
                                     "/hugging/hub", "/home/someone/.lmstudio/models", "/llama/"));
  set("HF_HUB_CACHE", "/hub");
  EXPECT_THAT(ModelStore::from_environment().directories(), ::testing::Contains("/hub/"));
  set("STEELYARD_MODELS", "/models");
  EXPECT_THAT(ModelStore::from_environment().directories(),
              ::testing::ElementsAre("/models", "/cache/steelyard/models", "/cache/strata/models"));
  set("STEELYARD_MODELS", "/a::/b c:");
  EXPECT_THAT(ModelStore::from_environment().directories(),
              ::testing::ElementsAre("/a", "/b c", "/cache/steelyard/models", "/cache/strata/models"));
  for (const char* name : kVariables) unsetenv(name);
  for (const auto& [name, value] : saved) setenv(name.c_str(), value.c_str(), 1);
}

}  // namespace
}  // namespace steelyard
