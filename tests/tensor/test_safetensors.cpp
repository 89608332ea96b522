#include "tensor/safetensors.h"

#include <doctest/doctest.h>

#include <cstring>
#include <limits>

#include "tests/support/errors.h"
#include "tests/support/folder.h"

using namespace burrow;
using doctest::Contains;

namespace {

// A file with this header, its correct length, and `data` bytes of data.
std::string file_of(const std::string& header, size_t data = 0) {
  const uint64_t n = header.size();
  std::string file(reinterpret_cast<const char*>(&n), 8);
  file += header;
  for (size_t i = 0; i < data; ++i) file += static_cast<char>('A' + i % 26);
  return file;
}

SafetensorsFile parse(const std::string& file) { return parse_safetensors(bytes_of(file), "m.st"); }

std::string tensor_json(const std::string& name, const std::string& dtype, const std::string& shape,
                        const std::string& offsets) {
  return "\"" + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets +
         "}";
}

// The header of a file with one tensor.
std::string one_tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                       const std::string& offsets) {
  return "{" + tensor_json(name, dtype, shape, offsets) + "}";
}

void refuses(const std::string& file, const std::string& message) {
  CHECK(error_of([&] { parse(file); }) == "[safetensors] m.st: " + message);
}

bool equal(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.bytes(), b.bytes(), a.nbytes()) == 0;
}

}  // namespace

TEST_CASE("every dtype survives a round trip") {
  const Folder folder;
  const std::string path = folder / "all.safetensors";
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const std::vector<std::pair<std::string, Tensor>> tensors{
      {"double", Tensor::of<double>({2, 2}, std::vector<double>{0.1, -0.0, 1e308, 5e-324})},
      {"float", Tensor::of<float>({1, 3}, std::vector<float>{nan, inf, -1.5f})},
      {"half", Tensor::of<bf16>({3}, std::vector<bf16>{bf16(1.0f), bf16(-3.25f), bf16(nan)})},
      {"int", Tensor::of<int32_t>({2}, std::vector<int32_t>{INT32_MIN, INT32_MAX})},
      {"rank 0", Tensor::of<float>({}, std::vector<float>{42.f})},
      {"empty", Tensor::empty({0}, DType::f32)},
      {"empty matrix", Tensor::empty({3, 0, 2}, DType::f64)},
      {"\"quoted\\ \n\t é 漢 \x01", Tensor::of<int32_t>({1}, std::vector<int32_t>{7})},
  };
  const std::map<std::string, std::string> metadata{{"schema", "1"}, {"note", "a \"b\"\né"}};
  write_safetensors(path, tensors, metadata);

  const SafetensorsFile back = read_safetensors(path);
  CHECK(back.metadata == metadata);
  REQUIRE(back.tensors.size() == tensors.size());
  for (const auto& [name, t] : tensors) {
    INFO(name);
    CHECK(equal(back.tensors.at(name), t));
    const size_t address = reinterpret_cast<size_t>(back.tensors.at(name).bytes());
    CHECK(address % size_of(t.dtype()) == 0);
  }

  // The data begins at a multiple of 64 bytes, and bytes in memory give the same tensors as the mapped file.
  const std::string bytes = read_file(path);
  uint64_t n = 0;
  std::memcpy(&n, bytes.data(), 8);
  CHECK((8 + n) % 64 == 0);
  const SafetensorsFile parsed = parse(bytes);
  for (const auto& [name, t] : tensors) CHECK(equal(parsed.tensors.at(name), t));
  // Writing what was read gives the same bytes.
  write_safetensors(folder / "/again", tensors, back.metadata);
  CHECK(read_file(folder / "/again") == bytes);
}

TEST_CASE("aligned tensors are views of the mapping, others are copies, and both outlive the file") {
  const Folder folder;
  const std::string path = folder / "m";
  const auto three = Tensor::of<bf16>({3}, std::vector<bf16>(3, bf16(2.f)));
  const auto wide = Tensor::of<float>({2}, std::vector<float>{1.f, 2.f});
  write_safetensors(path, {{"aligned", wide}, {"three", three}, {"unaligned", wide}});
  SafetensorsFile file = read_safetensors(path);
  CHECK(file.tensors.at("aligned").storage() == file.tensors.at("three").storage());
  CHECK(file.tensors.at("unaligned").storage() != file.tensors.at("three").storage());
  const Tensor a = file.tensors.at("aligned"), u = file.tensors.at("unaligned");
  file = {};
  CHECK(a.data<float>()[1] == 2.f);
  CHECK(u.data<float>()[1] == 2.f);
}

TEST_CASE("a file can be rewritten while it is mapped") {
  const Folder folder;
  const std::string path = folder / "m";
  write_safetensors(path, {{"x", Tensor::full({100}, 1.0, DType::f32)}});
  const Tensor x = read_safetensors(path).tensors.at("x");
  write_safetensors(path, {{"x", x}, {"y", x}});
  CHECK(x.data<float>()[99] == 1.f);
  CHECK(read_safetensors(path).tensors.at("y").data<float>()[99] == 1.f);
}

TEST_CASE("unusual but legal files are read") {
  CHECK(parse(file_of("{}")).tensors.empty());
  CHECK(parse(file_of("{}        ")).tensors.empty());
  CHECK(parse(file_of(R"({"__metadata__":{}})")).metadata.empty());
  CHECK(parse(file_of(one_tensor("s", "F32", "[]", "[0,4]"), 4)).tensors.at("s").rank() == 0);
  CHECK(parse(file_of(one_tensor("z", "F32", "[2,0]", "[0,0]"))).tensors.at("z").shape() == Shape{2, 0});
  // Listed out of order, with an empty tensor between the two.
  const auto file = parse(file_of("{" + tensor_json("b", "F32", "[1]", "[4,8]") + ", " +
                                      tensor_json("a", "F32", "[1]", "[0,4]") + "," +
                                      tensor_json("e", "F32", "[0]", "[4,4]") + "\n}",
                                  8));
  CHECK(std::memcmp(file.tensors.at("b").bytes(), "EFGH", 4) == 0);
  CHECK(parse(file_of(one_tensor("\\u00e9", "I32", "[1]", "[0,4]"), 4)).tensors.contains("é"));
}

TEST_CASE("header: size, bytes, JSON") {
  refuses("", "0 bytes are too few for a header");
  refuses("1234567", "7 bytes are too few for a header");
  refuses(std::string(8, '\0'), "the header does not start with '{'");
  refuses(std::string("\x03\0\0\0\0\0\0\0{}", 10), "the header has 3 bytes, the rest of the file 2");
  refuses(std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10),
          "a header of 100000001 bytes is above the limit of 100000000");
  refuses(std::string(8, '\xff') + "{}",
          "a header of 18446744073709551615 bytes is above the limit of 100000000");
  refuses(std::string("\xfa\xff\xff\xff\xff\xff\xff\xff{}", 10),
          "a header of 18446744073709551610 bytes is above the limit of 100000000");
  refuses(file_of(" {}"), "the header does not start with '{'");
  refuses(file_of("\n{}"), "the header does not start with '{'");
  refuses(file_of("\xef\xbb\xbf{}"), "the header does not start with '{'");
  refuses(file_of("[]"), "the header does not start with '{'");
  refuses(file_of("{}\n"), "the header does not end with '}' and spaces");
  refuses(file_of("{}x"), "the header does not end with '}' and spaces");
  refuses(file_of("{}{}"), "the header is not valid JSON at its byte 3");
  refuses(file_of("{oops}"), "the header is not valid JSON at its byte 2");
  refuses(file_of("{\"a\":}"), "the header is not valid JSON at its byte 6");
  refuses(file_of("{/**/}"), "the header is not valid JSON at its byte 2");
  refuses(file_of(std::string("{}\0{}", 5)), "a zero byte in the header");
  refuses(file_of(R"({"__metadata__":{"a":"\ud800"}})"), "the header is not valid JSON at its byte 29");
  for (const char* bad : {"\xff", "\x80", "\xc0\x80", "\xc3", "\xed\xa0\x80", "\xe0\x80\x80",
                          "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xf0\x80\x80\x80", "\xe2\x82"}) {
    refuses(file_of(std::string("{\"") + bad + "\":1}"), "the header is not UTF-8");
  }
}

TEST_CASE("header: structure") {
  const std::string a = tensor_json("a", "F32", "[1]", "[0,4]");
  refuses(file_of("{" + a + "," + a + "}", 4), "duplicate key 'a'");
  refuses(file_of("{" + tensor_json("\\u0061", "F32", "[1]", "[0,4]") + "," + a + "}", 4),
          "duplicate key 'a'");
  refuses(file_of(R"({"__metadata__":{},"__metadata__":{}})"), "duplicate key '__metadata__'");
  refuses(file_of(R"({"__metadata__":{"k":"1","k":"2"}})"), "duplicate key 'k' in __metadata__");
  refuses(file_of(R"({"a":{"dtype":"F32","dtype":"F64","shape":[1],"data_offsets":[0,4]}})", 4),
          "tensor 'a' has a duplicate key 'dtype'");
  refuses(file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4),
          "tensor 'a' has an unknown key 'x'");
  refuses(file_of(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4), "tensor 'a' lacks dtype");
  refuses(file_of(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4), "tensor 'a' lacks shape");
  refuses(file_of(R"({"a":{"dtype":"F32","shape":[1]}})", 4), "tensor 'a' lacks data_offsets");
  refuses(file_of(R"({"a":{}})"), "tensor 'a' lacks dtype");
  refuses(file_of(R"({"a":[]})"), "'a' is an array, not an object");
  refuses(file_of(R"({"a":1})"), "'a' is a number, not an object");
  refuses(file_of(R"({"a":null})"), "'a' is null, not an object");
  refuses(file_of(R"({"__metadata__":null})"), "'__metadata__' is null, not an object");
  refuses(file_of(R"({"__metadata__":{"k":1}})"), "__metadata__ 'k' is a number, not a string");
  refuses(file_of(R"({"__metadata__":{"k":{}}})"), "__metadata__ 'k' is an object, not a string");
  refuses(file_of(R"({"a":{"dtype":1}})"), "tensor 'a': dtype cannot hold a number");
  refuses(file_of(R"({"a":{"dtype":["F32"]}})"), "tensor 'a': dtype cannot hold an array");
  refuses(file_of(R"({"a":{"shape":3}})"), "tensor 'a': shape cannot hold a number");
  refuses(file_of(R"({"a":{"shape":"3"}})"), "tensor 'a': shape cannot hold a string");
  refuses(file_of(R"({"a":{"shape":[[3]]}})"), "tensor 'a': shape cannot hold an array");
  refuses(file_of(R"({"a":{"shape":{}}})"), "tensor 'a': shape cannot hold an object");
  refuses(file_of(R"({"a":{"shape":[true]}})"), "tensor 'a': shape cannot hold a boolean");
  refuses(file_of(R"({"a":{"data_offsets":[0]}})"), "tensor 'a': data_offsets has 1 numbers, not 2");
  refuses(file_of(R"({"a":{"data_offsets":[0,1,2]}})"), "tensor 'a': data_offsets has 3 numbers, not 2");
}

TEST_CASE("header: deep nesting neither recurses nor passes") {
  const std::string deep(1 << 20, '[');
  refuses(file_of("{\"a\":" + deep + "}"), "'a' is an array, not an object");
  refuses(file_of("{\"a\":{\"shape\":" + deep + "}"), "tensor 'a': shape cannot hold an array");
  std::string objects = "{";
  for (int i = 0; i < 100000; ++i) objects += "\"a\":{";
  refuses(file_of(objects + "}"), "tensor 'a' has an unknown key 'a'");
  std::string ones = "[1";
  for (int i = 0; i < 64; ++i) ones += ",1";
  refuses(file_of(one_tensor("a", "F32", ones + "]", "[0,4]"), 4),
          "tensor 'a': shape has more than 64 numbers");
}

TEST_CASE("numbers: negative, fractional, huge") {
  const auto with_shape = [](const std::string& shape) {
    return file_of(one_tensor("a", "F32", shape, "[0,4]"), 4);
  };
  refuses(with_shape("[-1]"), "tensor 'a': shape cannot hold a negative number");
  refuses(with_shape("[-0]"), "tensor 'a': shape cannot hold a negative number");
  refuses(with_shape("[1.0]"), "tensor 'a': shape cannot hold the number '1.0'");
  refuses(with_shape("[1e0]"), "tensor 'a': shape cannot hold the number '1e0'");
  refuses(with_shape("[18446744073709551616]"),
          "tensor 'a': shape cannot hold the number '18446744073709551616'");
  refuses(with_shape("[18446744073709551615]"), "tensor 'a': 18446744073709551615 is too large for shape");
  refuses(with_shape("[9223372036854775807]"), "tensor 'a': shape (9223372036854775807) overflows");
  refuses(with_shape("[4294967296,4294967296]"), "tensor 'a': shape (4294967296, 4294967296) overflows");
  // 2^62 elements of 4 bytes overflow to 0 in 64 bits; a size 0 after the overflow must not hide it.
  refuses(with_shape("[4611686018427387904]"), "tensor 'a': shape (4611686018427387904) overflows");
  refuses(with_shape("[4611686018427387904,4,0]"), "tensor 'a': shape (4611686018427387904, 4, 0) overflows");
  const std::string offsets = "{" + tensor_json("a", "F32", "[1]", "[0,18446744073709551615]") + "}";
  refuses(file_of(offsets, 4), "tensor 'a': 18446744073709551615 is too large for data_offsets");
}

TEST_CASE("layout: the tensors tile the data") {
  const auto two = [](const std::string& a, const std::string& b) {
    return "{" + tensor_json("a", "F32", "[1]", a) + "," + tensor_json("b", "F32", "[1]", b) + "}";
  };
  CHECK(parse(file_of(two("[0,4]", "[4,8]"), 8)).tensors.size() == 2);
  refuses(file_of(two("[0,4]", "[0,4]"), 8), "tensor 'b' at 0 overlaps the one before it, which ends at 4");
  refuses(file_of(two("[0,4]", "[2,6]"), 8), "tensor 'b' at 2 overlaps the one before it, which ends at 4");
  refuses(file_of(two("[0,4]", "[5,9]"), 9), "1 unused bytes before tensor 'b'");
  refuses(file_of(two("[1,5]", "[5,9]"), 9), "1 unused bytes before tensor 'a'");
  refuses(file_of(two("[0,4]", "[8,4]"), 8), "tensor 'b' ends at 4, before it begins at 8");
  refuses(file_of(two("[0,4]", "[4,8]"), 7), "tensor 'b' ends at 8, out of the data's 7 bytes");
  refuses(file_of(two("[0,4]", "[4,8]"), 9), "1 bytes after the last tensor");
  refuses(file_of(two("[0,4]", "[4,8]"), 8) + "PK\x05\x06 another format", "19 bytes after the last tensor");
  refuses(file_of("{}", 1), "1 bytes after the last tensor");
  refuses(file_of(two("[0,4]", "[4,9]"), 9),
          "tensor 'b': shape (1) of F32 needs 4 bytes, its offsets give 5");
  refuses(file_of(two("[0,3]", "[3,7]"), 7),
          "tensor 'a': shape (1) of F32 needs 4 bytes, its offsets give 3");
}

TEST_CASE("dtypes: unknown ones, and legal ones that are not supported") {
  for (const std::string unknown : {"F8_E4M3", "f32", "", "F32 ", "C64"}) {
    refuses(file_of(one_tensor("a", unknown, "[1]", "[0,4]"), 4),
            "tensor 'a' has unknown dtype '" + unknown + "'");
  }
  const std::pair<std::string, size_t> legal[] = {{"F16", 2}, {"I64", 8}, {"I16", 2}, {"I8", 1},  {"U8", 1},
                                                  {"U16", 2}, {"U32", 4}, {"U64", 8}, {"BOOL", 1}};
  for (const auto& [dtype, size] : legal) {
    refuses(file_of(one_tensor("a", dtype, "[1]", fmt::format("[0,{}]", size)), size),
            "tensor 'a' is " + dtype + "; only F64, F32, BF16 and I32 can be read");
  }
  refuses(file_of(one_tensor("bell\\u0007" + std::string(200, 'x'), "X", "[1]", "[0,4]"), 4),
          "tensor 'bell\\x07" + std::string(115, 'x') + "...' has unknown dtype 'X'");
}

TEST_CASE("a file cut at any byte is refused") {
  const Folder folder;
  const std::string path = folder / "m";
  write_safetensors(
      path, {{"a", Tensor::full({2, 3}, 1.0, DType::f32)}, {"b", Tensor::full({5}, 2.0, DType::bf16)}},
      {{"k", "v"}});
  const std::string whole = read_file(path);
  CHECK(parse(whole).tensors.size() == 2);
  for (size_t n = 0; n < whole.size(); ++n) {
    INFO("cut at " << n);
    CHECK_THROWS_AS(parse(whole.substr(0, n)), Error);
    write_file_atomically(folder / "cut", whole.substr(0, n));
    CHECK_THROWS_AS(read_safetensors(folder / "cut"), Error);
  }
}

TEST_CASE("what the writer rejects") {
  const Folder folder;
  const std::string path = folder / "m";
  const Tensor x = Tensor::full({1}, 1.0, DType::f32);
  CHECK_THROWS_WITH(write_safetensors(path, {{"x", x}, {"x", x}}), Contains("two tensors named 'x'"));
  CHECK_THROWS_WITH(write_safetensors(path, {{"__metadata__", x}}),
                    Contains("no tensor can be named __metadata__"));
  CHECK_THROWS_WITH(write_safetensors(path, {{"x", Tensor()}}), Contains("tensor 'x' is undefined"));
  CHECK_THROWS_WITH(write_safetensors(path, {{"\xff", x}}), Contains("is not UTF-8"));
  CHECK_THROWS_WITH(write_safetensors(path, {}, {{"k", "\xff"}}), Contains("is not UTF-8"));
  CHECK(folder.count() == 0);
  CHECK_THROWS_WITH(read_safetensors(path), Contains((path + ": No such file or directory").c_str()));
  CHECK_THROWS_WITH(read_safetensors(folder.path), Contains("not a regular file"));
}

TEST_CASE("the fuzzer's corpus: each file is read or refused with an Error") {
  size_t read = 0, refused = 0;
  for (const auto& file : std::filesystem::directory_iterator(BURROW_TEST_FILES "/fuzz/corpus/safetensors")) {
    INFO(file.path().string());
    try {
      read_safetensors(file.path().string());
      ++read;
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(read >= 8);
  CHECK(refused >= 6);
}
