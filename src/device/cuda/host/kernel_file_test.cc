#include "device/cuda/host/kernel_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>

#include "base/error.h"

namespace steelyard::cuda {
namespace {

using ::testing::HasSubstr;

const std::string kId(64, 'a');

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }
std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class KernelFileTest : public ::testing::Test {
 protected:
  KernelFileTest() {
    const std::string large(1000, 'x');
    const KernelImage images[] = {{"general/rows", bytes_of("first")}, {"hopper/step", bytes_of(large)}};
    write_kernel_file(path_, kId, images);
    std::ifstream in(path_, std::ios::binary);
    whole_.assign(std::istreambuf_iterator<char>(in), {});
  }
  ~KernelFileTest() override { std::filesystem::remove(path_); }

  void replace(std::string_view content) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << content;
  }
  std::string error(const std::string& id = kId) {
    try {
      KernelFile::open(path_, id);
    } catch (const Error& e) {
      return e.what();
    }
    return "none";
  }

  const std::filesystem::path path_ =
      std::filesystem::path(::testing::TempDir()) /
      (std::string("kernels_") + ::testing::UnitTest::GetInstance()->current_test_info()->name());
  std::string whole_;
};

TEST_F(KernelFileTest, GivesBackWhatWasWritten) {
  KernelFile opened = KernelFile::open(path_, kId);
  const KernelFile file = std::move(opened);
  ASSERT_EQ(file.images().size(), 2u);
  EXPECT_EQ(file.images()[0].name, "general/rows");
  EXPECT_EQ(text_of(file.images()[0].data), "first");
  EXPECT_EQ(file.images()[1].name, "hopper/step");
  EXPECT_EQ(text_of(file.images()[1].data), std::string(1000, 'x'));
  for (const KernelImage& image : file.images())
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(image.data.data()) % 64, 0u);
}

TEST_F(KernelFileTest, AnotherBuildsFileIsRefused) {
  EXPECT_THAT(error(std::string(64, 'b')), HasSubstr("was built for another version of Steelyard"));
  std::string other_format = whole_;
  other_format[8] = 2;
  replace(other_format);
  EXPECT_THAT(error(), HasSubstr("was built for another version of Steelyard"));
}

TEST_F(KernelFileTest, WhatIsNoSuchFileIsRefused) {
  for (const char* content : {"x", "GGUF and so on, but not this"}) {
    replace(content);
    EXPECT_THAT(error(), HasSubstr("is no file of Steelyard's kernels")) << content;
  }
  std::filesystem::remove(path_);
  EXPECT_NE(error(), "none");
}

TEST_F(KernelFileTest, ACutOrLongerFileIsRefusedWhereverItIsCut) {
  for (std::size_t n = 1; n < whole_.size(); n += 7) {
    replace(std::string_view(whole_).substr(0, n));
    EXPECT_NE(error(), "none") << n;
  }
  replace(whole_ + "x");
  EXPECT_THAT(error(), HasSubstr("is damaged (it is cut or too long)"));
}

// Whatever a byte of the header or the directory says, no image reaches out of the file.
TEST_F(KernelFileTest, EveryOffsetIsChecked) {
  const std::size_t first_image = 64 * 4;
  ASSERT_EQ(whole_.substr(first_image, 5), "first");
  int refused = 0;
  for (std::size_t at = 0; at < first_image; ++at)
    for (const int value : {0, 1, 0x7f, 0xff}) {
      std::string broken = whole_;
      broken[at] = static_cast<char>(value);
      replace(broken);
      try {
        const KernelFile file = KernelFile::open(path_, kId);
        for (const KernelImage& image : file.images()) EXPECT_LE(text_of(image.data).size(), whole_.size());
      } catch (const Error&) {
        ++refused;
      }
    }
  EXPECT_GT(refused, 300);
}

}  // namespace
}  // namespace steelyard::cuda
