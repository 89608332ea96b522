#include "tensor/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <set>
#include <tuple>

#include "tensor/files.h"
#include "tensor/json.h"
#include "tensor/utf8.h"

namespace burrow {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr uint64_t kLargestHeader = 100'000'000;
constexpr size_t kLargestRank = 64;
constexpr size_t kAlignment = 64;

struct FormatDType {
  std::string_view name;
  uint64_t size;
  std::optional<DType> ours;
};
constexpr std::array<FormatDType, 13> kDTypes{{{"F64", 8, DType::f64},
                                               {"F32", 4, DType::f32},
                                               {"F16", 2, {}},
                                               {"BF16", 2, DType::bf16},
                                               {"I64", 8, {}},
                                               {"I32", 4, DType::i32},
                                               {"I16", 2, {}},
                                               {"I8", 1, {}},
                                               {"U8", 1, {}},
                                               {"U16", 2, {}},
                                               {"U32", 4, {}},
                                               {"U64", 8, {}},
                                               {"BOOL", 1, {}}}};

// A name from the file, for messages: shortened, and control characters escaped.
std::string in_quotes(std::string_view name) {
  constexpr size_t kLongest = 120;
  std::string text = "'";
  for (char c : name.substr(0, kLongest)) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      text += fmt::format("\\x{:02x}", c);
    else
      text += c;
  }
  return text + (name.size() > kLongest ? "...'" : "'");
}

struct Entry {
  std::string name;
  const FormatDType* dtype = nullptr;
  Shape shape;
  std::vector<uint64_t> offsets;
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

// Reads the header by SAX events. Only the legal nesting is accepted, so that a deeply nested header fails at
// its fourth bracket at the latest, and every key is seen, so that duplicates are found.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(const std::string& file, std::vector<Entry>& entries,
               std::map<std::string, std::string>& metadata)
      : file_(file), entries_(entries), metadata_(metadata) {}

  bool start_object(std::size_t) override {
    if (at_ == At::outside)
      at_ = At::top;
    else if (at_ == At::top && key_ == "__metadata__")
      at_ = At::metadata;
    else if (at_ == At::top) {
      at_ = At::tensor;
      entries_.emplace_back().name = key_;
    } else
      return unexpected("an object");
    return true;
  }
  bool end_object() override {
    if (at_ == At::tensor) {
      const Entry& e = entries_.back();
      const bool whole = e.has_dtype && e.has_shape && e.has_offsets;
      BURROW_CHECK(whole, "[safetensors] {}: tensor {} lacks {}", file_, in_quotes(e.name),
                   !e.has_dtype   ? "dtype"
                   : !e.has_shape ? "shape"
                                  : "data_offsets");
    }
    at_ = at_ == At::top ? At::outside : At::top;
    return true;
  }
  bool key(std::string& k) override {
    key_ = k;
    if (at_ == At::top) {
      BURROW_CHECK(names_.insert(k).second, "[safetensors] {}: duplicate key {}", file_, in_quotes(k));
    } else if (at_ == At::metadata) {
      const bool fresh = metadata_.emplace(k, "").second;
      BURROW_CHECK(fresh, "[safetensors] {}: duplicate key {} in __metadata__", file_, in_quotes(k));
    } else {
      Entry& e = entries_.back();
      bool* seen = k == "dtype"          ? &e.has_dtype
                   : k == "shape"        ? &e.has_shape
                   : k == "data_offsets" ? &e.has_offsets
                                         : nullptr;
      BURROW_CHECK(seen, "[safetensors] {}: tensor {} has an unknown key {}", file_, in_quotes(e.name),
                   in_quotes(k));
      BURROW_CHECK(!*seen, "[safetensors] {}: tensor {} has a duplicate key {}", file_, in_quotes(e.name),
                   in_quotes(k));
      *seen = true;
    }
    return true;
  }
  bool start_array(std::size_t) override {
    if (at_ != At::tensor || key_ == "dtype") return unexpected("an array");
    at_ = key_ == "shape" ? At::shape : At::offsets;
    return true;
  }
  bool end_array() override {
    at_ = At::tensor;
    const Entry& e = entries_.back();
    BURROW_CHECK(key_ != "data_offsets" || e.offsets.size() == 2,
                 "[safetensors] {}: tensor {}: data_offsets has {} numbers, not 2", file_, in_quotes(e.name),
                 e.offsets.size());
    return true;
  }
  bool string(std::string& s) override {
    if (at_ == At::metadata)
      metadata_[key_] = s;
    else if (at_ == At::tensor && key_ == "dtype") {
      const auto found = std::find_if(kDTypes.begin(), kDTypes.end(), [&](auto& d) { return d.name == s; });
      BURROW_CHECK(found != kDTypes.end(), "[safetensors] {}: tensor {} has unknown dtype {}", file_,
                   in_quotes(entries_.back().name), in_quotes(s));
      entries_.back().dtype = &*found;
    } else
      return unexpected("a string");
    return true;
  }
  bool number_unsigned(uint64_t n) override {
    if (at_ != At::shape && at_ != At::offsets) return unexpected("a number");
    Entry& e = entries_.back();
    BURROW_CHECK(n <= INT64_MAX, "[safetensors] {}: tensor {}: {} is too large for {}", file_,
                 in_quotes(e.name), n, key_);
    if (at_ == At::shape)
      e.shape.push_back(static_cast<int64_t>(n));
    else
      e.offsets.push_back(n);
    BURROW_CHECK(e.shape.size() <= kLargestRank && e.offsets.size() <= kLargestRank,
                 "[safetensors] {}: tensor {}: {} has more than {} numbers", file_, in_quotes(e.name), key_,
                 kLargestRank);
    return true;
  }
  bool number_integer(int64_t) override { return unexpected("a negative number"); }
  // Integers that fit neither uint64_t nor int64_t are reported as floats, too.
  bool number_float(double, const std::string& text) override {
    return unexpected("the number " + in_quotes(text));
  }
  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool binary(nlohmann::json::binary_t&) override { return unexpected("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) override {
    fail("[safetensors] {}: the header is not valid JSON at its byte {}", file_, position);
  }

 private:
  enum class At { outside, top, metadata, tensor, shape, offsets };

  [[noreturn]] bool unexpected(const std::string& what) const {
    switch (at_) {
      case At::outside:
        fail("[safetensors] {}: the header is {}, not an object", file_, what);
      case At::top:
        fail("[safetensors] {}: {} is {}, not an object", file_, in_quotes(key_), what);
      case At::metadata:
        fail("[safetensors] {}: __metadata__ {} is {}, not a string", file_, in_quotes(key_), what);
      default:
        fail("[safetensors] {}: tensor {}: {} cannot hold {}", file_, in_quotes(entries_.back().name), key_,
             what);
    }
  }

  const std::string& file_;
  std::vector<Entry>& entries_;
  std::map<std::string, std::string>& metadata_;
  std::set<std::string> names_;
  std::string key_;
  At at_ = At::outside;
};

// Checks the bytes of the header, before it is parsed. Returns the JSON text without its padding.
std::string_view header_text(std::span<const std::byte> bytes, const std::string& file) {
  BURROW_CHECK(bytes.size() >= 8, "[safetensors] {}: {} bytes are too few for a header", file, bytes.size());
  uint64_t n = 0;
  std::memcpy(&n, bytes.data(), 8);
  BURROW_CHECK(n <= kLargestHeader, "[safetensors] {}: a header of {} bytes is above the limit of {}", file,
               n, kLargestHeader);
  BURROW_CHECK(n <= bytes.size() - 8, "[safetensors] {}: the header has {} bytes, the rest of the file {}",
               file, n, bytes.size() - 8);
  std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, n);
  BURROW_CHECK(text.starts_with('{'), "[safetensors] {}: the header does not start with '{{'", file);
  BURROW_CHECK(is_utf8(text), "[safetensors] {}: the header is not UTF-8", file);
  text = text.substr(0, text.find_last_not_of(' ') + 1);
  BURROW_CHECK(text.ends_with('}'), "[safetensors] {}: the header does not end with '}}' and spaces", file);
  // The JSON parser stops at a zero byte, and the rest would not be checked.
  BURROW_CHECK(text.find('\0') == text.npos, "[safetensors] {}: a zero byte in the header", file);
  return text;
}

// The tensors must tile the `size` bytes after the header: no overlap, no gap, nothing after the last.
void check_layout(std::vector<Entry>& entries, uint64_t size, const std::string& file) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.offsets, a.name) < std::tie(b.offsets, b.name);
  });
  uint64_t expected = 0;
  for (const Entry& e : entries) {
    const uint64_t begin = e.offsets[0], end = e.offsets[1];
    const std::string tensor = in_quotes(e.name);
    BURROW_CHECK(begin <= end, "[safetensors] {}: tensor {} ends at {}, before it begins at {}", file, tensor,
                 end, begin);
    BURROW_CHECK(end <= size, "[safetensors] {}: tensor {} ends at {}, out of the data's {} bytes", file,
                 tensor, end, size);
    BURROW_CHECK(begin >= expected,
                 "[safetensors] {}: tensor {} at {} overlaps the one before it, which ends at {}", file,
                 tensor, begin, expected);
    BURROW_CHECK(begin == expected, "[safetensors] {}: {} unused bytes before tensor {}", file,
                 begin - expected, tensor);
    uint64_t bytes = e.dtype->size;
    for (int64_t d : e.shape) {
      // Bounded by int64 rather than uint64, because the tensor counts its elements in int64.
      const bool fits =
          !__builtin_mul_overflow(bytes, static_cast<uint64_t>(d), &bytes) && bytes <= INT64_MAX;
      BURROW_CHECK(fits, "[safetensors] {}: tensor {}: shape {} overflows", file, tensor, e.shape);
    }
    BURROW_CHECK(bytes == end - begin,
                 "[safetensors] {}: tensor {}: shape {} of {} needs {} bytes, its offsets give {}", file,
                 tensor, e.shape, e.dtype->name, bytes, end - begin);
    expected = end;
  }
  BURROW_CHECK(expected == size, "[safetensors] {}: {} bytes after the last tensor", file, size - expected);
}

// `storage` holds the file if tensors may be views of it, and is null if they must be copies.
SafetensorsFile parse(std::span<const std::byte> bytes, const std::string& file,
                      const std::shared_ptr<Storage>& storage) {
  SafetensorsFile result;
  std::vector<Entry> entries;
  const std::string_view header = header_text(bytes, file);
  HeaderReader reader(file, entries, result.metadata);
  nlohmann::json::sax_parse(header.begin(), header.end(), &reader);
  uint64_t start = 0;
  std::memcpy(&start, bytes.data(), 8);
  start += 8;
  check_layout(entries, bytes.size() - start, file);
  for (Entry& e : entries) {
    BURROW_CHECK(e.dtype->ours, "[safetensors] {}: tensor {} is {}; only F64, F32, BF16 and I32 can be read",
                 file, in_quotes(e.name), e.dtype->name);
    const DType dtype = *e.dtype->ours;
    const uint64_t offset = start + e.offsets[0];
    const bool aligned = reinterpret_cast<uintptr_t>(bytes.data() + offset) % size_of(dtype) == 0;
    Tensor t;
    if (storage && aligned) {
      t = Tensor::view(storage, offset, std::move(e.shape), dtype);
    } else {
      t = Tensor::empty(std::move(e.shape), dtype, Device::cpu, "safetensors");
      if (t.nbytes()) std::memcpy(t.bytes(), bytes.data() + offset, t.nbytes());
    }
    result.tensors.emplace(std::move(e.name), std::move(t));
  }
  return result;
}

std::string_view format_name(DType dtype) {
  for (const FormatDType& d : kDTypes) {
    if (d.ours == dtype) return d.name;
  }
  fail("[safetensors] dtype {} has no name in the format", dtype);
}

std::string json_string(const std::string& text, const std::string& file) {
  BURROW_CHECK(is_utf8(text), "[safetensors] {}: {} is not UTF-8", file, in_quotes(text));
  return nlohmann::json(text).dump();
}

std::string make_header(const std::string& file, const std::vector<std::pair<std::string, Tensor>>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  std::vector<std::string> items;
  if (!metadata.empty()) {
    std::vector<std::string> pairs;
    for (const auto& [k, v] : metadata) pairs.push_back(json_string(k, file) + ":" + json_string(v, file));
    items.push_back(fmt::format("\"__metadata__\":{{{}}}", fmt::join(pairs, ",")));
  }
  std::set<std::string_view> names{"__metadata__"};
  uint64_t offset = 0;
  for (const auto& [name, t] : tensors) {
    BURROW_CHECK(name != "__metadata__", "[safetensors] {}: no tensor can be named __metadata__", file);
    BURROW_CHECK(names.insert(name).second, "[safetensors] {}: two tensors named {}", file, in_quotes(name));
    BURROW_CHECK(t.defined(), "[safetensors] {}: tensor {} is undefined", file, in_quotes(name));
    items.push_back(fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                                json_string(name, file), format_name(t.dtype()),
                                fmt::join(t.shape().begin(), t.shape().end(), ","), offset,
                                offset + t.nbytes()));
    offset += t.nbytes();
  }
  std::string header = fmt::format("{{{}}}", fmt::join(items, ","));
  header.resize((8 + header.size() + kAlignment - 1) / kAlignment * kAlignment - 8, ' ');
  BURROW_CHECK(header.size() <= kLargestHeader,
               "[safetensors] {}: a header of {} bytes is above the limit of {}", file, header.size(),
               kLargestHeader);
  return header;
}

}  // namespace

SafetensorsFile read_safetensors(const std::string& path) {
  auto file = MappedFile::open(path);
  const auto bytes = file->bytes();
  // There is no read-only Storage; the mapping itself faults on writes.
  auto storage = Storage::external(const_cast<std::byte*>(bytes.data()), bytes.size(), [file] {});
  return parse(bytes, path, storage);
}

SafetensorsFile parse_safetensors(std::span<const std::byte> bytes, const std::string& name) {
  return parse(bytes, name, nullptr);
}

void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  const std::string header = make_header(path, tensors, metadata);
  write_file_atomically(path, [&](const ByteSink& sink) {
    const uint64_t n = header.size();
    sink(std::as_bytes(std::span(&n, 1)));
    sink(bytes_of(header));
    for (const auto& [name, t] : tensors) {
      const Tensor host = t.to(Device::cpu);
      sink({host.bytes(), host.nbytes()});
    }
  });
}

}  // namespace burrow
