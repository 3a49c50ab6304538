#include "base/output_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <iterator>

#include "base/error.h"
#include "base/temporary_folder.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class OutputFileTest : public ::testing::Test {
 protected:
  std::string text(const fs::path& path) const {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  const TemporaryFolder temporary_{"output"};
  const fs::path folder_ = temporary_.path();
};

TEST_F(OutputFileTest, AppearsWhenFinished) {
  const fs::path path = folder_ / "a";
  std::ofstream(path) << "old";
  {
    OutputFile file(path);
    file.write("new one", 7);
    EXPECT_EQ(text(path), "old");
    file.finish();
  }
  EXPECT_EQ(text(path), "new one");
  { OutputFile(path).write("x", 1); }  // without finish()
  EXPECT_EQ(text(path), "new one");
  EXPECT_EQ(files(), 1u);
}

// Whatever ends the program while it writes: nothing of the file is left.
TEST_F(OutputFileTest, AKilledWriterLeavesNothing) {
  const int probe = ::open(folder_.c_str(), O_TMPFILE | O_WRONLY, 0600);
  if (probe < 0) GTEST_SKIP() << "files without a name aren't possible in " << folder_;
  ::close(probe);
  const pid_t child = ::fork();
  if (child == 0) {
    OutputFile file(folder_ / "a");
    file.write("part", 4);
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(files(), 0u);
}

TEST_F(OutputFileTest, ReplacesWhatALinkPointsTo) {
  const fs::path target = folder_ / "target", link = folder_ / "link";
  std::ofstream(target) << "old";
  fs::create_symlink(target, link);
  OutputFile file(link);
  file.write("new", 3);
  file.finish();
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_EQ(text(target), "new");
}

std::string error_of(const fs::path& path) {
  try {
    OutputFile file(path);
    file.write("x", 1);
    file.finish();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

// Once the device itself was replaced by a file.
TEST_F(OutputFileTest, DevicesAreWrittenToAndStay) {
  if (!fs::is_character_file("/dev/full")) GTEST_SKIP() << "there is no /dev/full here";
  EXPECT_EQ(error_of("/dev/full"), "can't write /dev/full: No space left on device");
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
  EXPECT_EQ(error_of("/dev/null"), "no error");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST_F(OutputFileTest, SaysWhyNot) {
  EXPECT_THAT(error_of(folder_), HasSubstr("it is a directory"));
  EXPECT_THAT(error_of(folder_ / "no" / "such"), HasSubstr("No such file or directory"));
  EXPECT_EQ(files(), 0u);
}

}  // namespace
}  // namespace steelyard
