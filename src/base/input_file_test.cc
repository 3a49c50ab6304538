#include "base/input_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "base/error.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;

TEST(InputFile, ReadsAndSaysWhenItWasCut) {
  std::string pattern = (fs::temp_directory_path() / "steelyard-in-XXXXXX").string();
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  const fs::path directory = pattern, path = directory / "a";
  std::ofstream(path) << "0123456789";
  const InputFile file = InputFile::open(path);
  EXPECT_EQ(file.size(), 10u);
  EXPECT_EQ(file.identity(), file_identity(path));
  std::string out(4, ' ');
  file.read(6, std::as_writable_bytes(std::span(out)));
  EXPECT_EQ(out, "6789");
  fs::resize_file(path, 8);
  EXPECT_NE(file.identity(), file_identity(path));
  try {
    file.read(6, std::as_writable_bytes(std::span(out)));
    ADD_FAILURE() << "read what isn't there";
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.kind()), static_cast<int>(ErrorKind::io));
    EXPECT_THAT(error.what(), ::testing::HasSubstr("was cut to 8 bytes"));
  }
  fs::remove_all(directory);
  EXPECT_EQ(file_identity(path), std::nullopt);
}

}  // namespace
}  // namespace steelyard
