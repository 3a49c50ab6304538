#include "base/sha256.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace steelyard {
namespace {

// As Python's hashlib says; the lengths around which padding takes another block, too.
TEST(Sha256, IsTheStandards) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(std::string(55, 'a')),
            "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
  EXPECT_EQ(sha256_hex(std::string(56, 'a')),
            "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a");
  EXPECT_EQ(sha256_hex(std::string(64, 'a')),
            "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
  EXPECT_EQ(sha256_hex(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, IsTheSameInPiecesAndByEitherWay) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += static_cast<char>(i * 37 + i / 7);
  for (const auto mix : {Sha256::portable(), Sha256::fastest()})
    for (const std::size_t piece : {1, 7, 63, 64, 65, 200, 1000}) {
      Sha256 hash(mix);
      for (std::size_t at = 0; at < text.size(); at += piece)
        hash.update(std::string_view(text).substr(at, piece));
      EXPECT_EQ(hash.hex(), sha256_hex(text)) << piece;
      Sha256 more = hash;
      more.update("x");
      EXPECT_EQ(more.hex(), sha256_hex(text + "x"));
      EXPECT_EQ(hash.hex(), sha256_hex(text));
    }
  Sha256 plain(Sha256::portable());
  plain.update(text);
  EXPECT_EQ(plain.hex(), sha256_hex(text));
}

}  // namespace
}  // namespace steelyard
