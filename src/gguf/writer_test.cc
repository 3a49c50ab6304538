#include "gguf/writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <csignal>

#include <cstdlib>
#include <fstream>
#include <string>

#include "base/error.h"
#include "base/temporary_folder.h"
#include "gguf/testing.h"
#include "quant/quant.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;
using testing::failure;
using ::testing::HasSubstr;

class GgufFileTest : public ::testing::Test {
 protected:
  std::size_t files() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(directory_), fs::directory_iterator()));
  }
  // A part of a split model with one tensor; count 0 leaves the split keys out.
  fs::path write_part(const std::string& name, unsigned number, unsigned count, const std::string& tensor) {
    GgufWriter writer(directory_ / name);
    if (number == 0) writer.add_string("general.architecture", "llama");
    if (count > 0) {
      writer.add_u16("split.no", static_cast<std::uint16_t>(number));
      writer.add_u16("split.count", static_cast<std::uint16_t>(count));
      writer.add_i32("split.tensors.count", static_cast<std::int32_t>(count));
    }
    const std::array<std::uint64_t, 1> dims{2};
    writer.add_tensor(tensor, dims, DType::F32);
    const std::array<float, 2> values{static_cast<float>(number), 1};
    writer.write(std::as_bytes(std::span(values)));
    writer.finish();
    return directory_ / name;
  }

  const TemporaryFolder temporary_{"gguf"};
  const fs::path directory_ = temporary_.path();
};

TEST_F(GgufFileTest, RoundTripKeepsEverything) {
  const fs::path path = directory_ / "model.gguf";
  const std::vector<std::string> tokens = {"a", "", "\xe2\x96\x81the"};
  const std::array<bool, 3> flags{true, false, true};
  std::vector<float> values(512);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) * 0.01f - 2;
  std::vector<std::byte> blocks(row_bytes(DType::Q4_K, 512));
  quantize(DType::Q4_K, values.data(), 512, blocks.data());
  {
    GgufWriter w(path, 64);
    w.add_string("general.architecture", "llama");
    w.add_u8("u8", 1), w.add_i8("i8", -1), w.add_u16("u16", 2), w.add_i16("i16", -2);
    w.add_u32("u32", 3), w.add_i32("i32", -3), w.add_u64("u64", 4), w.add_i64("i64", -4);
    w.add_f32("f32", 0.5f), w.add_f64("f64", 0.25), w.add_bool("bool", true);
    w.add_array("tokens", std::span<const std::string>(tokens));
    w.add_array("flags", std::span<const bool>(flags));
    w.add_array("empty", std::span<const float>());
    const std::array<std::int32_t, 2> types{1, -6};
    w.add_array("types", std::span<const std::int32_t>(types));
    w.add_tensor("w", std::array<std::uint64_t, 2>{256, 2}, DType::Q4_K);
    w.add_tensor("b", std::array<std::uint64_t, 1>{3}, DType::F32);
    EXPECT_EQ(w.tensor_bytes(), 288u + 12u);
    for (std::size_t i = 0; i < blocks.size(); i += 100)  // in pieces, across no particular borders
      w.write(std::span(blocks).subspan(i, std::min<std::size_t>(100, blocks.size() - i)));
    const std::array<float, 3> bias{1, 2, 3};
    w.write(std::as_bytes(std::span(bias)));
    EXPECT_FALSE(fs::exists(path)) << "the name appears only when the file is complete";
    w.finish();
  }
  EXPECT_EQ(files(), 1u);
  const GgufFile file = GgufFile::open(path);
  EXPECT_EQ(file.version(), 3u);
  EXPECT_EQ(file.alignment(), 64u);
  const GgufMetadata& m = file.metadata();
  EXPECT_EQ(m.find_uint("u8"), 1u);
  EXPECT_EQ(m.find_int("i8"), -1);
  EXPECT_EQ(m.find_uint("u16"), 2u);
  EXPECT_EQ(m.find_int("i16"), -2);
  EXPECT_EQ(m.find_uint("u32"), 3u);
  EXPECT_EQ(m.find_int("i32"), -3);
  EXPECT_EQ(m.find_uint("u64"), 4u);
  EXPECT_EQ(m.find_int("i64"), -4);
  EXPECT_EQ(m.find_float("f32"), 0.5);
  EXPECT_EQ(m.find_float("f64"), 0.25);
  EXPECT_EQ(m.find_bool("bool"), true);
  EXPECT_THAT(m.require_array("tokens").strings(), ::testing::ElementsAre("a", "", "\xe2\x96\x81the"));
  EXPECT_TRUE(m.require_array("flags").bool_at(2));
  EXPECT_EQ(m.require_array("empty").size(), 0u);
  EXPECT_THAT(m.require_array("types").ints(), ::testing::ElementsAre(1, -6));
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_TRUE(std::equal(blocks.begin(), blocks.end(), file.data(file.tensors()[0]).begin()));
  EXPECT_EQ(file.tensors()[1].offset % 64, 0u);
}

TEST_F(GgufFileTest, CopiesEntries) {
  const fs::path a = write_part("a.gguf", 0, 0, "w");
  {
    GgufWriter w(directory_ / "rich.gguf");
    const std::vector<std::string> tokens = {"x", "yz"};
    w.add_array("tokens", std::span<const std::string>(tokens));
    const std::array<float, 2> scores{-1, 0.5f};
    w.add_array("scores", std::span<const float>(scores));
    w.add_i64("n", -9);
    w.add_string("s", "text");
    w.finish();
  }
  const GgufFile rich = GgufFile::open(directory_ / "rich.gguf");
  GgufWriter copy(directory_ / "copy.gguf");
  for (const GgufEntry& entry : rich.metadata().entries())
    if (entry.key() != "general.alignment") copy.add(entry);
  copy.finish();
  const GgufFile read = GgufFile::open(directory_ / "copy.gguf");
  ASSERT_EQ(read.metadata().entries().size(), rich.metadata().entries().size());
  for (const GgufEntry& entry : rich.metadata().entries())
    EXPECT_EQ(read.metadata().find(entry.key())->printable(), entry.printable());
}

TEST_F(GgufFileTest, LeavesNothingWithoutFinish) {
  const fs::path path = directory_ / "model.gguf";
  {
    GgufWriter w(path);
    w.add_tensor("w", std::array<std::uint64_t, 1>{1000}, DType::F32);
    w.write(std::vector<std::byte>(100));
    EXPECT_FALSE(fs::exists(path));  // it appears only when it is whole
    EXPECT_THAT(failure([&] { w.finish(); }, ErrorKind::internal), HasSubstr("data is missing"));
  }
  EXPECT_EQ(files(), 0u);
}

TEST_F(GgufFileTest, FailedWriteIsOneErrorAndLeavesNothing) {
  // A limit on file sizes stands for a full disk.
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = old;
  small.rlim_cur = 64 << 10;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  {
    GgufWriter w(directory_ / "model.gguf");
    w.add_tensor("w", std::array<std::uint64_t, 1>{1 << 16}, DType::F32);
    const std::vector<std::byte> data(1 << 18);
    EXPECT_THAT(failure([&] { w.write(data); }, ErrorKind::io), HasSubstr("can't write"));
    EXPECT_EQ(files(), 0u);
    EXPECT_THAT(failure([&] { w.write(data); }, ErrorKind::internal), HasSubstr("after its end"));
  }
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
}

TEST_F(GgufFileTest, RefusesBadTargets) {
  EXPECT_THAT(failure([&] { GgufWriter w(directory_ / "gone" / "m.gguf"); }, ErrorKind::io),
              HasSubstr("No such file"));
  EXPECT_THAT(failure([&] { GgufWriter w(directory_); }, ErrorKind::bad_input), HasSubstr("is a directory"));
  EXPECT_THAT(failure([&] { GgufWriter w(directory_ / "m", 24); }, ErrorKind::bad_input),
              HasSubstr("power of two"));
  EXPECT_EQ(files(), 0u);
}

TEST_F(GgufFileTest, OpensSplitModels) {
  const fs::path first = write_part("m-00001-of-00003.gguf", 0, 3, "a");
  const fs::path second = write_part("m-00002-of-00003.gguf", 1, 3, "b");
  const fs::path third = write_part("m-00003-of-00003.gguf", 2, 3, "c");
  const GgufFile file = GgufFile::open(first);
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.paths().size(), 3u);
  EXPECT_EQ(file.metadata().find_string("general.architecture"), "llama");
  for (unsigned i = 0; i < 3; ++i) {
    const GgufTensor& tensor = file.tensors()[i];
    EXPECT_EQ(tensor.file, i);
    EXPECT_EQ(file.find_tensor(tensor.name), &tensor);
    float value;
    std::memcpy(&value, file.data(tensor).data(), 4);
    EXPECT_EQ(value, static_cast<float>(i));
    file.release(tensor);
  }
  EXPECT_EQ(file.total_bytes(), fs::file_size(first) + fs::file_size(second) + fs::file_size(third));
  EXPECT_THAT(failure([&] { GgufFile::open(third); }, ErrorKind::bad_input),
              HasSubstr("is part 3 of 3 of a split model; open " + first.string() + " instead"));
}

TEST_F(GgufFileTest, RefusesBrokenSplits) {
  const fs::path first = write_part("m-00001-of-00002.gguf", 0, 2, "a");
  EXPECT_THAT(failure([&] { GgufFile::open(first); }, ErrorKind::not_found), HasSubstr("part 2 is missing"));
  write_part("m-00002-of-00002.gguf", 1, 2, "a");
  EXPECT_THAT(failure([&] { GgufFile::open(first); }, ErrorKind::bad_input), HasSubstr("'a' occurs twice"));
  write_part("m-00002-of-00002.gguf", 0, 2, "b");
  EXPECT_THAT(failure([&] { GgufFile::open(first); }, ErrorKind::bad_input),
              HasSubstr("says it is part 1 of 2"));
  const fs::path odd = write_part("renamed.gguf", 0, 2, "a");
  EXPECT_THAT(failure([&] { GgufFile::open(odd); }, ErrorKind::bad_input),
              HasSubstr("must end in -00001-of-00002.gguf"));
  const fs::path lost = write_part("lost.gguf", 1, 2, "a");
  EXPECT_THAT(failure([&] { GgufFile::open(lost); }, ErrorKind::bad_input),
              HasSubstr("open its part number 1"));
  // Announced: as many tensors as parts (write_part); one part of one tensor too few.
  {
    GgufWriter w(directory_ / "m-00002-of-00002.gguf");
    w.add_u16("split.no", 1);
    w.add_u16("split.count", 2);
    w.finish();
  }
  EXPECT_THAT(failure([&] { GgufFile::open(first); }, ErrorKind::bad_input),
              HasSubstr("hold 1 tensors together, but 2"));
}

TEST_F(GgufFileTest, OpenNamesTheFileInItsErrors) {
  const fs::path path = directory_ / "text.gguf";
  std::ofstream(path) << "hello, I am no model";
  EXPECT_THAT(failure([&] { GgufFile::open(path); }, ErrorKind::bad_input), HasSubstr(path.string()));
  EXPECT_THAT(failure([&] { GgufFile::open(directory_); }, ErrorKind::bad_input),
              HasSubstr("is a directory"));
  EXPECT_THAT(failure([&] { GgufFile::open(directory_ / "no"); }, ErrorKind::not_found),
              HasSubstr("no file"));
}

// The two real models, where they have been fetched.
struct RealModel {
  const char* file;
  const char* architecture;
  std::size_t tensors;
  std::uint64_t layers, vocabulary, bytes;
};
class RealModelTest : public ::testing::TestWithParam<RealModel> {};

fs::path model_path(const std::string& name) {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const fs::path base = cache != nullptr ? fs::path(cache) : fs::path(home != nullptr ? home : "") / ".cache";
  return base / "steelyard" / "models" / name;
}

TEST_P(RealModelTest, OpensAndLists) {
  const RealModel& model = GetParam();
  const fs::path path = model_path(model.file);
  if (!fs::exists(path)) GTEST_SKIP() << path << " has not been fetched";
  const GgufFile file = GgufFile::open(path);
  EXPECT_EQ(file.version(), 3u);
  EXPECT_EQ(file.total_bytes(), model.bytes);
  EXPECT_EQ(file.metadata().find_string("general.architecture"), model.architecture);
  EXPECT_EQ(file.metadata().find_uint(std::string(model.architecture) + ".block_count"), model.layers);
  EXPECT_EQ(file.tensors().size(), model.tensors);
  EXPECT_EQ(file.metadata().require_array("tokenizer.ggml.tokens").strings().size(), model.vocabulary);
  ASSERT_NE(file.find_tensor("token_embd.weight"), nullptr);
  EXPECT_EQ(file.find_tensor("token_embd.weight")->shape.rows(), model.vocabulary);
  for (const GgufTensor& tensor : file.tensors()) EXPECT_EQ(file.data(tensor).size(), tensor.bytes);
}

INSTANTIATE_TEST_SUITE_P(
    Models, RealModelTest,
    ::testing::Values(RealModel{"SmolLM2-135M-Instruct.Q4_1.gguf", "llama", 272, 30, 49152, 98362432},
                      RealModel{"gemma-3-270m-q4_k_m.gguf", "gemma3", 236, 18, 262144, 253113024}),
    [](const auto& info) { return std::string(info.param.architecture); });

}  // namespace
}  // namespace steelyard
