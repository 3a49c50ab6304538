#include "gguf/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "gguf/testing.h"

namespace steelyard {
namespace {

using testing::failure;
using ::testing::HasSubstr;

// A file put together byte by byte, independent of the writer.
class Bytes {
 public:
  template <typename T>
  Bytes& number(T value) {
    data_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Bytes& text(std::string_view value) {
    number<std::uint64_t>(value.size());
    data_.append(value);
    return *this;
  }
  Bytes& raw(std::string_view value) {
    data_.append(value);
    return *this;
  }
  Bytes& pad(std::size_t alignment) {
    data_.resize((data_.size() + alignment - 1) / alignment * alignment, '\0');
    return *this;
  }
  Bytes& header(std::int64_t tensors, std::int64_t keys, std::uint32_t version = 3) {
    return raw("GGUF").number(version).number(tensors).number(keys);
  }
  template <typename T>
  Bytes& key(std::string_view name, GgufType type, T value) {
    return text(name).number(type).number(value);
  }
  Bytes& tensor(std::string_view name, const std::vector<std::int64_t>& dims, std::int32_t type,
                std::uint64_t offset) {
    text(name).number<std::uint32_t>(static_cast<std::uint32_t>(dims.size()));
    for (const std::int64_t size : dims) number(size);
    return number(type).number(offset);
  }
  Bytes& zeros(std::size_t n) {
    data_.append(n, '\0');
    return *this;
  }
  const std::string& str() const { return data_; }
  std::span<const std::byte> span() const {
    return {reinterpret_cast<const std::byte*>(data_.data()), data_.size()};
  }

 private:
  std::string data_;
};

std::span<const std::byte> as_bytes(const std::string& s) {
  return {reinterpret_cast<const std::byte*>(s.data()), s.size()};
}

std::string failure(const Bytes& bytes, ErrorKind kind = ErrorKind::bad_input) {
  return failure([&] { GgufFile::parse(bytes.span(), "model.gguf"); }, kind);
}

// Every value type, arrays, two tensors.
Bytes sample(std::uint32_t version = 3) {
  Bytes b;
  b.header(2, 16, version);
  b.key<std::uint8_t>("u8", GgufType::u8, 250).key<std::int8_t>("i8", GgufType::i8, -5);
  b.key<std::uint16_t>("u16", GgufType::u16, 65000).key<std::int16_t>("i16", GgufType::i16, -300);
  b.key<std::uint32_t>("u32", GgufType::u32, 4000000000u).key<std::int32_t>("i32", GgufType::i32, -70000);
  b.key<std::uint64_t>("u64", GgufType::u64, ~0ull).key<std::int64_t>("i64", GgufType::i64, -5000000000);
  b.key<float>("f32", GgufType::f32, 0.5f).key<double>("f64", GgufType::f64, 1e-300);
  b.key<std::uint8_t>("bool", GgufType::boolean, 1);
  b.text("string").number(GgufType::string).text("caf\xc3\xa9\n");
  b.text("strings").number(GgufType::array).number(GgufType::string).number<std::uint64_t>(3);
  b.text("a").text("").text("longer");
  b.text("ints").number(GgufType::array).number(GgufType::i16).number<std::uint64_t>(2);
  b.number<std::int16_t>(-7).number<std::int16_t>(8);
  b.text("floats").number(GgufType::array).number(GgufType::f32).number<std::uint64_t>(2);
  b.number(0.25f).number(std::numeric_limits<float>::infinity());
  b.text("bools")
      .number(GgufType::array)
      .number(GgufType::boolean)
      .number<std::uint64_t>(2)
      .raw({"\x01\x00", 2});
  b.tensor("a.weight", {64, 3}, 8, 0);  // Q8_0: 6 blocks of 34 = 204 bytes, padded 224
  b.tensor("b.weight", {5}, 0, 224).pad(32);
  for (int i = 0; i < 204; ++i) b.number(static_cast<std::uint8_t>(i));
  b.zeros(20);
  for (int i = 0; i < 5; ++i) b.number(static_cast<float>(i));
  return b;
}

TEST(Gguf, ReadsEveryValueType) {
  for (const std::uint32_t version : {2u, 3u}) {
    const Bytes bytes = sample(version);
    const GgufFile file = GgufFile::parse(bytes.span());
    EXPECT_EQ(file.version(), version);
    EXPECT_EQ(file.alignment(), 32u);
    const GgufMetadata& m = file.metadata();
    EXPECT_EQ(m.entries().size(), 16u);
    EXPECT_EQ(m.find_uint("u8"), 250u);
    EXPECT_EQ(m.find_int("i8"), -5);
    EXPECT_EQ(m.find_uint("u16"), 65000u);
    EXPECT_EQ(m.find_int("i16"), -300);
    EXPECT_EQ(m.find_uint("u32"), 4000000000u);
    EXPECT_EQ(m.find_int("u32"), 4000000000);
    EXPECT_EQ(m.find_int("i32"), -70000);
    EXPECT_EQ(m.find_uint("u64"), ~0ull);
    EXPECT_EQ(m.find_int("i64"), -5000000000);
    EXPECT_EQ(m.find_float("f32"), 0.5);
    EXPECT_EQ(m.find_float("f64"), 1e-300);
    EXPECT_EQ(m.find_bool("bool"), true);
    EXPECT_EQ(m.find_string("string"), "caf\xc3\xa9\n");
    EXPECT_EQ(m.find_string("absent"), std::nullopt);
    EXPECT_EQ(m.find_array("absent").has_value(), false);
    const GgufArray strings = m.require_array("strings");
    EXPECT_THAT(strings.strings(), ::testing::ElementsAre("a", "", "longer"));
    EXPECT_EQ(strings.string_at(2), "longer");
    EXPECT_THAT(m.require_array("ints").ints(), ::testing::ElementsAre(-7, 8));
    EXPECT_EQ(m.require_array("ints").uint_at(1), 8u);
    EXPECT_THAT(m.require_array("floats").floats(), ::testing::ElementsAre(0.25f, INFINITY));
    EXPECT_TRUE(m.require_array("bools").bool_at(0));
    EXPECT_FALSE(m.require_array("bools").bool_at(1));
  }
}

TEST(Gguf, FindsTensorsAndTheirData) {
  const Bytes bytes = sample();
  GgufFile parsed = GgufFile::parse(bytes.span());
  const GgufFile file = std::move(parsed);  // views survive the move
  ASSERT_EQ(file.tensors().size(), 2u);
  const GgufTensor* a = file.find_tensor("a.weight");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->type, DType::Q8_0);
  EXPECT_EQ(a->shape.n_dims, 2u);
  EXPECT_EQ(a->shape.columns(), 64u);
  EXPECT_EQ(a->shape.rows(), 3u);
  EXPECT_EQ(a->shape.elements(), 192u);
  EXPECT_EQ(to_string(a->shape), "64 x 3");
  ASSERT_EQ(file.data(*a).size(), 204u);
  EXPECT_EQ(file.data(*a)[203], std::byte{203});
  const GgufTensor* b = file.find_tensor("b.weight");
  ASSERT_NE(b, nullptr);
  float last;
  std::memcpy(&last, file.data(*b).data() + 16, 4);
  EXPECT_EQ(last, 4.0f);
  EXPECT_EQ(file.find_tensor("c.weight"), nullptr);
  EXPECT_EQ(file.total_bytes(), bytes.str().size());
  EXPECT_EQ(file.tensor_bytes(), 224u);
}

TEST(Gguf, NamesTheKeyThatHoldsAnotherTypeOrRange) {
  const Bytes bytes = sample();
  const GgufFile file = GgufFile::parse(bytes.span());
  const GgufMetadata& m = file.metadata();
  EXPECT_THAT(failure([&] { m.find_uint("string"); }), HasSubstr("'string' holds a value of type string"));
  EXPECT_THAT(failure([&] { m.find_uint("i8"); }), HasSubstr("'i8' holds -5, which must not be negative"));
  EXPECT_THAT(failure([&] { m.find_int("u64"); }), HasSubstr("'u64' holds 18446744073709551615"));
  EXPECT_THAT(failure([&] { m.find_uint("u16", 100); }), HasSubstr("'u16' holds 65000; at most 100"));
  EXPECT_THAT(failure([&] { m.find_int("i16", -10, 10); }),
              HasSubstr("'i16' holds -300; it must be from -10 to 10"));
  EXPECT_THAT(failure([&] { m.find_uint("f32"); }), HasSubstr("'f32'"));
  EXPECT_THAT(failure([&] { m.find_float("u32"); }), HasSubstr("a float is expected"));
  EXPECT_THAT(failure([&] { m.find_bool("u8"); }), HasSubstr("a boolean is expected"));
  EXPECT_THAT(failure([&] { m.find_string("strings"); }), HasSubstr("a string is expected"));
  EXPECT_THAT(failure([&] { m.find_array("u8"); }), HasSubstr("an array is expected"));
  EXPECT_THAT(failure([&] { m.require_uint("gone"); }), HasSubstr("lacks the metadata key 'gone'"));
  EXPECT_THAT(failure([&] { m.require_string("gone"); }), HasSubstr("'gone'"));
  // An array read as another element type, or past its end.
  const GgufArray strings = m.require_array("strings"), ints = m.require_array("ints");
  EXPECT_THAT(failure([&] { strings.int_at(0); }),
              HasSubstr("'strings' is an array of string where integers"));
  EXPECT_THAT(failure([&] { strings.floats(); }), HasSubstr("floats are expected"));
  EXPECT_THAT(failure([&] { ints.strings(); }), HasSubstr("strings are expected"));
  EXPECT_THAT(failure([&] { ints.float_at(0); }), HasSubstr("floats are expected"));
  EXPECT_THAT(failure([&] { ints.bool_at(0); }), HasSubstr("booleans are expected"));
  EXPECT_THAT(failure([&] { ints.uint_at(0); }), HasSubstr("must not be negative"));
  EXPECT_THAT(failure([&] { ints.int_at(2); }), HasSubstr("has 2 elements; element 2 is missing"));
  EXPECT_THAT(failure([&] { strings.string_at(~0ull); }), HasSubstr("element"));
}

TEST(Gguf, RefusesFloatsThatAreNotFinite) {
  Bytes b;
  b.header(0, 1).key<float>("scale", GgufType::f32, NAN);
  const GgufFile file = GgufFile::parse(b.span());
  EXPECT_THAT(failure([&] { file.metadata().find_float("scale"); }), HasSubstr("'scale' holds nan"));
}

TEST(Gguf, PrintsValuesInOneLine) {
  const Bytes bytes = sample();
  const GgufFile file = GgufFile::parse(bytes.span());
  const auto print = [&](std::string_view key, std::size_t width = 60) {
    return file.metadata().find(key)->printable(width);
  };
  EXPECT_EQ(print("u64"), "18446744073709551615");
  EXPECT_EQ(print("i64"), "-5000000000");
  EXPECT_EQ(print("f32"), "0.5");
  EXPECT_EQ(print("bool"), "true");
  EXPECT_EQ(print("string"), "caf\xc3\xa9\\n");
  EXPECT_EQ(print("string", 4), "caf…");
  EXPECT_EQ(print("strings"), "[3 x string: \"a\", \"\", \"longer\"]");
  EXPECT_EQ(print("strings", 20), "[3 x string: \"a\", …]");
  EXPECT_EQ(print("ints"), "[2 x i16: -7, 8]");
  EXPECT_EQ(print("floats"), "[2 x f32: 0.25, inf]");
  EXPECT_EQ(print("bools"), "[2 x bool: true, false]");
  Bytes odd;
  odd.header(0, 1).text("k").number(GgufType::string).text({"\xff\x00\xc3\xa9\xed\xa0\x80", 7});
  const GgufFile strange = GgufFile::parse(odd.span());
  EXPECT_EQ(strange.metadata().find("k")->printable(), "\\xff\\x00\xc3\xa9\\xed\\xa0\\x80");
}

// ---- bad files

TEST(GgufBadFile, TruncatedAtEveryByte) {
  const std::string whole = sample().str();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    // A copy of just that size, so that a sanitizer sees any read past its end.
    const std::vector<char> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(cut.data()), cut.size());
    const std::string message = failure([&] { GgufFile::parse(bytes, "cut.gguf"); });
    ASSERT_THAT(message, HasSubstr("cut.gguf")) << size;
  }
}

// Reads everything a file offers; any answer is fine, but it is a file or an Error.
void touch_everything(std::span<const std::byte> bytes) {
  try {
    const GgufFile file = GgufFile::parse(bytes);
    for (const GgufEntry& entry : file.metadata().entries()) EXPECT_LE(entry.printable(40).size(), 80u);
    unsigned sum = 0;
    for (const GgufTensor& tensor : file.tensors())
      for (const std::byte b : file.data(tensor)) sum += static_cast<unsigned>(b);
    EXPECT_GE(sum, 0u);
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()), "");
  }
}

TEST(GgufBadFile, EveryFlippedBit) {
  const std::string whole = sample().str();
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string flipped = whole;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ 1 << bit % 8);
    touch_everything(as_bytes(flipped));
  }
}

TEST(GgufBadFile, EveryByteMadeExtreme) {
  const std::string whole = sample().str();
  for (std::size_t i = 0; i < whole.size(); ++i) {
    for (const int value : {0x00, 0x7f, 0x80, 0xff}) {
      std::string changed = whole;
      for (std::size_t j = i; j < std::min(i + 8, whole.size()); ++j) {
        changed[j] = static_cast<char>(value);
        touch_everything(as_bytes(changed));
      }
    }
  }
}

TEST(GgufBadFile, NotGguf) {
  EXPECT_THAT(failure(Bytes()), HasSubstr("is empty"));
  EXPECT_THAT(failure(Bytes().raw("PK\x03\x04 a zip")), HasSubstr("is a zip archive, not a GGUF file"));
  EXPECT_THAT(failure(Bytes().raw("\x1b[2J")), HasSubstr("is not a GGUF file: it starts with \"\\x1b[2J\""));
  EXPECT_THAT(failure(Bytes().raw("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n")),
              HasSubstr("is a Git LFS pointer"));
  EXPECT_THAT(failure(Bytes().raw("\n <!DOCTYPE html><html>")), HasSubstr("is a web page"));
  EXPECT_THAT(failure(Bytes().raw("<HTML><head>")), HasSubstr("is a web page"));
  EXPECT_THAT(failure(Bytes().raw(std::string("\x40\0\0\0\0\0\0\0{\"__metadata__\":{}}", 26)),
                      ErrorKind::unsupported),
              HasSubstr("is a safetensors file"));
  EXPECT_THAT(failure(Bytes().raw("G")), HasSubstr("cut off"));
  EXPECT_THAT(failure(Bytes().raw("X")), HasSubstr("is not a GGUF file"));
  EXPECT_THAT(failure(Bytes().raw("tjgg"), ErrorKind::unsupported), HasSubstr("from before GGUF"));
  EXPECT_THAT(failure(Bytes().header(0, 0, 1), ErrorKind::unsupported), HasSubstr("version 1"));
  EXPECT_THAT(failure(Bytes().header(0, 0, 4), ErrorKind::unsupported), HasSubstr("version 4"));
  EXPECT_THAT(failure(Bytes().header(0, 0, 0x03000000), ErrorKind::unsupported), HasSubstr("big-endian"));
}

TEST(GgufBadFile, HugeCounts) {
  EXPECT_THAT(failure(Bytes().header(1ll << 60, 0)), HasSubstr("claims 1152921504606846976 tensors"));
  EXPECT_THAT(failure(Bytes().header(-1, 0)), HasSubstr("claims -1 tensors"));
  EXPECT_THAT(failure(Bytes().header(0, 1ll << 40)),
              HasSubstr("metadata keys, more than its 24 bytes can hold"));
  EXPECT_THAT(failure(Bytes().header(0, -5)), HasSubstr("claims -5 metadata keys"));
  Bytes array;
  array.header(0, 1)
      .text("tokens")
      .number(GgufType::array)
      .number(GgufType::string)
      .number<std::uint64_t>(1ull << 61);
  EXPECT_THAT(failure(array), HasSubstr("array 'tokens' claims 2305843009213693952 elements"));
  Bytes numbers;
  numbers.header(0, 1)
      .text("scores")
      .number(GgufType::array)
      .number(GgufType::f64)
      .number<std::uint64_t>(~0ull / 8 + 2);
  EXPECT_THAT(failure(numbers), HasSubstr("array 'scores' claims"));
  Bytes text;
  text.header(0, 1).text("name").number(GgufType::string).number<std::uint64_t>(~0ull).zeros(64);
  EXPECT_THAT(failure(text), HasSubstr("inside a metadata string"));
}

TEST(GgufBadFile, BadKeysAndTypes) {
  EXPECT_THAT(failure(Bytes().header(0, 1).text("k").number<std::uint32_t>(13).zeros(16)),
              HasSubstr("type id 13"));
  EXPECT_THAT(failure(Bytes().header(0, 1).text("").number(GgufType::u8).zeros(16)),
              HasSubstr("key of 0 bytes"));
  EXPECT_THAT(failure(Bytes().header(0, 1).key<std::uint8_t>("flag", GgufType::boolean, 2).zeros(8)),
              HasSubstr("'flag' holds a boolean that is neither"));
  Bytes twice;
  twice.header(0, 2)
      .key<std::uint8_t>("same", GgufType::u8, 2)
      .key<std::uint8_t>("same", GgufType::u8, 2)
      .zeros(9);
  EXPECT_THAT(failure(twice), HasSubstr("'same' occurs twice"));
  Bytes nested;
  nested.header(0, 1)
      .text("deep")
      .number(GgufType::array)
      .number(GgufType::array)
      .number<std::uint64_t>(1)
      .zeros(16);
  EXPECT_THAT(failure(nested), HasSubstr("'deep' is an array of type id 9"));
}

TEST(GgufBadFile, Alignment) {
  for (const std::uint32_t alignment : {0u, 1u, 4u, 33u, 1u << 21, 0xffffffffu}) {
    Bytes b;
    b.header(0, 1).key("general.alignment", GgufType::u32, alignment);
    EXPECT_THAT(failure(b), HasSubstr("general.alignment is " + std::to_string(alignment)));
  }
  Bytes text;
  text.header(0, 1).text("general.alignment").number(GgufType::string).text("32");
  EXPECT_THAT(failure(text), HasSubstr("'general.alignment' holds a value of type string"));
  Bytes fine;
  fine.header(1, 1).key("general.alignment", GgufType::u32, 64u).tensor("w", {1}, 0, 0).pad(64).number(7.0f);
  const GgufFile file = GgufFile::parse(fine.span());
  EXPECT_EQ(file.alignment(), 64u);
  EXPECT_EQ(file.tensors()[0].offset % 64, 0u);
}

TEST(GgufBadFile, TensorsPastTheEnd) {
  EXPECT_THAT(failure(Bytes().header(1, 0).tensor("w", {1024}, 0, 0).pad(32).zeros(4095)),
              HasSubstr("tensor 'w' (4096 bytes at offset 0) lies past its end"));
  EXPECT_THAT(failure(Bytes().header(1, 0).tensor("w", {1024}, 0, 64).pad(32).zeros(5000)),
              HasSubstr("'w' starts at offset 64 where 0 is expected"));
  Bytes overlapping;
  overlapping.header(2, 0).tensor("a", {8}, 0, 0).tensor("b", {8}, 0, 0).pad(32).zeros(64);
  EXPECT_THAT(failure(overlapping), HasSubstr("'b' starts at offset 0 where 32 is expected"));
  // No data section at all.
  EXPECT_THAT(failure(Bytes().header(1, 0).tensor("w", {1}, 0, 0)), HasSubstr("past its end"));
}

TEST(GgufBadFile, OverflowingShapes) {
  const auto one = [](const std::vector<std::int64_t>& dims, std::int32_t type) {
    return Bytes().header(1, 0).tensor("w", dims, type, 0).pad(32).zeros(64);
  };
  EXPECT_THAT(failure(one({1ll << 32, 1ll << 32}, 0)), HasSubstr("more elements than 63 bits"));
  EXPECT_THAT(failure(one({1ll << 31, 1ll << 31, 4}, 0)), HasSubstr("more elements than 63 bits"));
  EXPECT_THAT(failure(one({1ll << 62}, 0)), HasSubstr("more bytes than 64 bits"));
  EXPECT_THAT(failure(one({1ll << 62}, 1)), HasSubstr("lies past its end"));
  EXPECT_THAT(failure(one({-8}, 0)), HasSubstr("dimension of size -8"));
  EXPECT_THAT(failure(one({8, 0}, 0)), HasSubstr("dimension of size 0"));
  EXPECT_THAT(failure(one({1, 1, 1, 1, 1}, 0)), HasSubstr("claims 5 dimensions"));
  EXPECT_THAT(failure(one({33}, 8)), HasSubstr("rows of 33 elements, but Q8_0 needs a multiple of 32"));
  // Sizes that wrap around only when summed.
  Bytes sum;
  sum.header(5, 0);
  for (int i = 0; i < 5; ++i)
    sum.tensor(std::string("w") + std::to_string(i), {1ll << 60}, 0, static_cast<std::uint64_t>(i) << 62);
  EXPECT_THAT(failure(sum.pad(32)), HasSubstr("claim more bytes than 64 bits"));
}

TEST(GgufBadFile, UnknownTensorTypes) {
  const auto one = [](std::int32_t type) {
    return Bytes().header(1, 0).tensor("blk.0.attn_q.weight", {256}, type, 0).pad(32).zeros(2048);
  };
  EXPECT_THAT(failure(one(16), ErrorKind::unsupported),
              HasSubstr("tensor 'blk.0.attn_q.weight' has type id 16 (IQ2_XXS), which Steelyard can't read"));
  EXPECT_THAT(failure(one(1000), ErrorKind::unsupported), HasSubstr("type id 1000 (no known type)"));
  EXPECT_THAT(failure(one(-1), ErrorKind::unsupported), HasSubstr("type id -1"));
}

TEST(GgufBadFile, NamesAreUniqueAndShort) {
  Bytes twice;
  twice.header(2, 0).tensor("w", {8}, 0, 0).tensor("w", {8}, 0, 32).pad(32).zeros(64);
  EXPECT_THAT(failure(twice), HasSubstr("tensor 'w' occurs twice"));
  EXPECT_THAT(failure(Bytes().header(1, 0).tensor("", {8}, 0, 0).pad(32).zeros(64)),
              HasSubstr("name of 0 bytes"));
  EXPECT_THAT(failure(Bytes().header(1, 0).tensor(std::string(2000, 'x'), {8}, 0, 0).pad(32).zeros(64)),
              HasSubstr("name of 2000 bytes"));
  // A name with a line break and an escape sequence stays one harmless line.
  const std::string message = failure(Bytes().header(1, 0).tensor("a\n\x1b[2J", {8}, 99, 0).pad(32).zeros(64),
                                      ErrorKind::unsupported);
  EXPECT_THAT(message, HasSubstr("'a\\n\\x1b[2J'"));
}

TEST(GgufBadFile, PartsOfSplitModelsNeedFiles) {
  Bytes b;
  b.header(0, 1).key<std::uint16_t>("split.count", GgufType::u16, 3);
  EXPECT_THAT(failure(b), HasSubstr("one part of a split model"));
}

}  // namespace
}  // namespace steelyard
