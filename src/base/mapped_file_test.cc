#include "base/mapped_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/temporary_folder.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;

class MappedFileTest : public ::testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& content) {
    std::ofstream(directory_ / name, std::ios::binary) << content;
    return directory_ / name;
  }
  std::string failure(const fs::path& path, ErrorKind kind) {
    try {
      MappedFile::open(path);
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.kind()), static_cast<int>(kind)) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "opened " << path;
    return "";
  }

  const TemporaryFolder temporary_{"map"};
  const fs::path directory_ = temporary_.path();
};

TEST_F(MappedFileTest, MapsTheWholeContentAndMoves) {
  const std::string content(10000, 'x');
  MappedFile file = MappedFile::open(write("a", content + "end"));
  ASSERT_EQ(file.size(), 10003u);
  const std::byte* data = file.bytes().data();
  MappedFile moved = std::move(file);
  EXPECT_EQ(file.size(), 0u);  // NOLINT: a moved-from file is empty by contract
  EXPECT_EQ(moved.bytes().data(), data);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(moved.bytes().data()), moved.bytes().size()),
            content + "end");
}

TEST_F(MappedFileTest, HintsKeepTheContent) {
  std::string content(1 << 20, 'a');
  for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7 % 251);
  const MappedFile file = MappedFile::open(write("a", content));
  file.release(0, ~0ull);
  file.release(content.size(), 1);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(file.bytes().data()), file.size()), content);
  EXPECT_FALSE(file.changed());
}

TEST_F(MappedFileTest, AFileThatIsCutReadsAsZerosAndSaysSo) {
  const std::string content(1 << 20, 'a');
  const fs::path path = write("a", content);
  const MappedFile file = MappedFile::open(path), other = MappedFile::open(write("b", content));
  fs::resize_file(path, 100000);
  long sums[4] = {};  // threads of their own, as those that load weights
  std::vector<std::thread> readers;
  for (long& sum : sums)
    readers.emplace_back([&] {
      for (const std::byte b : file.bytes()) sum += static_cast<int>(b);
    });
  for (std::thread& reader : readers) reader.join();
  for (const long sum : sums) EXPECT_EQ(sum, 100000L * 'a');
  fs::remove(path);
  EXPECT_TRUE(file.changed());  // there is no file to compare with, but bytes were missing
  EXPECT_FALSE(other.changed());
}

TEST_F(MappedFileTest, NoticesAFileThatIsWrittenOrReplaced) {
  const fs::path path = write("a", "first"), link = directory_ / "link";
  fs::create_symlink(path, link);
  const MappedFile file = MappedFile::open(link);
  EXPECT_FALSE(file.changed());
  fs::rename(path, directory_ / "gone");
  EXPECT_FALSE(file.changed());  // still there, under another name
  write("a", "other");
  EXPECT_TRUE(file.changed());
  const MappedFile again = MappedFile::open(link);
  fs::last_write_time(path, fs::last_write_time(path) + std::chrono::seconds(1));
  EXPECT_TRUE(again.changed());
}

TEST(MappingGuardDeathTest, ABusErrorElsewhereStillEnds) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const MappingGuard guard(nullptr, 0);
  EXPECT_DEATH(raise(SIGBUS), "");  // by the signal, or by a sanitizer that takes it
}

TEST_F(MappedFileTest, RefusesWhatIsNoFile) {
  EXPECT_THAT(failure(directory_ / "absent", ErrorKind::not_found), ::testing::HasSubstr("no file"));
  EXPECT_THAT(failure(directory_, ErrorKind::bad_input), ::testing::HasSubstr("is a directory"));
  EXPECT_THAT(failure(write("empty", ""), ErrorKind::bad_input), ::testing::HasSubstr("is empty"));
  const fs::path file = write("file", "x");
  EXPECT_THAT(failure(file / "below", ErrorKind::not_found), ::testing::HasSubstr("no file"));
  const fs::path pipe = directory_ / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(failure(pipe, ErrorKind::bad_input), ::testing::HasSubstr("not a regular file"));
}

TEST_F(MappedFileTest, RefusesAnUnreadableFile) {
  fs::permissions(directory_, fs::perms::owner_all | fs::perms::others_exec);
  const fs::path file = write("secret", "x");
  fs::permissions(file, fs::perms::none);
  // Root may read every file, so ask as somebody else.
  const bool root = geteuid() == 0;
  if (root && seteuid(65534) != 0) GTEST_SKIP() << "root may read every file, and can't become another user";
  EXPECT_THAT(failure(file, ErrorKind::io), ::testing::HasSubstr("Permission denied"));
  if (root) {
    ASSERT_EQ(seteuid(0), 0);
  }
}

}  // namespace
}  // namespace steelyard
