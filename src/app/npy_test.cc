#include "app/npy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "base/error.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;

class Npy : public testing::Test {
 protected:
  fs::path dir = fs::temp_directory_path() / fmt::format("steelyard-npy-{}", ::getpid());
  fs::path path = dir / "x.npy";
  void SetUp() override { fs::create_directories(dir); }
  void TearDown() override { fs::remove_all(dir); }

  void write(std::uint64_t rows, std::uint64_t columns) {
    NpyWriter out(path, rows, columns);
    std::vector<float> row(columns);
    for (std::uint64_t i = 0; i < rows; ++i) {
      for (std::uint64_t j = 0; j < columns; ++j) row[j] = static_cast<float>(10 * i + j);
      out.append(row);
    }
    out.finish();
  }
  void overwrite(std::size_t at, const std::string& text) {
    std::fstream f(path, std::ios::in | std::ios::out | std::ios::binary);
    f.seekp(static_cast<std::streamoff>(at));
    f << text;
  }
};

TEST_F(Npy, ReadsWhatItWrote) {
  write(3, 2);
  const NpyFile f = NpyFile::open(path);
  EXPECT_EQ(f.rows(), 3u);
  EXPECT_EQ(f.columns(), 2u);
  EXPECT_THAT(f.row(2), ElementsAre(20.0f, 21.0f));
}

// The header by the format's definition: magic, version 1.0, its length, and data from a multiple of 64 on.
TEST_F(Npy, HeaderIsAsDefined) {
  write(3, 2);
  std::ifstream in(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  const std::string_view start("\x93NUMPY\x01\x00\x76\x00{'descr': '<f4'", 26);
  EXPECT_EQ(std::string_view(bytes).substr(0, 25), start.substr(0, 25));
  EXPECT_EQ(bytes.size(), 128 + 3 * 2 * sizeof(float));
  EXPECT_EQ(bytes[127], '\n');
}

TEST_F(Npy, AnUnfinishedFileDisappears) {
  {
    NpyWriter out(path, 3, 2);
    out.append(std::vector<float>{1, 2});
    EXPECT_THROW(out.finish(), Error);
    EXPECT_THROW(out.append(std::vector<float>(5)), Error);
  }
  EXPECT_TRUE(fs::is_empty(dir));
}

TEST_F(Npy, RefusesOtherFiles) {
  write(3, 2);
  fs::resize_file(path, 128 + 20);
  EXPECT_THROW(NpyFile::open(path), Error);
  write(3, 2);
  overwrite(10, "{'descr': '<f8'");
  EXPECT_THROW(NpyFile::open(path), Error);
  write(3, 2);
  overwrite(0, "GGUF");
  EXPECT_THROW(NpyFile::open(path), Error);
}

}  // namespace
}  // namespace steelyard
