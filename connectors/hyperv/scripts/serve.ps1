# deskyard-script: serve 1
# An errand of the host's own: opens disks that hold still, read-only, and sends the mover what it asks for until it says
# "end". Parameters: to (host, port, thumbprint, token), disks (each: name, path, limit).
param($p)
# deskyard-part: https
# deskyard-part: changes

$mounted = @{}
$streams = @{}

function Get-Disk($name) {
    $disk = @($p.disks) | Where-Object { [string]$_.name -ceq $name } | Select-Object -First 1
    if ($null -eq $disk) { throw 'Deskyard.NoDisk' }
    $disk
}

# .NET refuses devices unless its newer handling of paths is on; the call that it makes itself does not.
function Open-Device($device) {
    $read = [IO.FileAccess]::Read
    $share = [IO.FileShare]::ReadWrite
    $there = [IO.FileMode]::Open
    try { return New-Object System.IO.FileStream($device, $there, $read, $share, 512) } catch { $null = $_ }
    $native = [object].Assembly.GetType('Microsoft.Win32.Win32Native')
    $open = $native.GetMethod('UnsafeCreateFile', [Reflection.BindingFlags]'NonPublic, Static')
    $generic = [int]::MinValue
    $handle = $open.Invoke($null, @([string]$device, $generic, $share, $null, $there, [int]0, [IntPtr]::Zero))
    if ($handle.IsInvalid) { throw 'Deskyard.DiskNotOpened' }
    New-Object System.IO.FileStream($handle, $read, 512)
}

function Open-Disk($disk) {
    $name = [string]$disk.name
    if ($streams.ContainsKey($name)) { return }
    $number = (Get-VHD -Path $disk.path).DiskNumber
    if ($null -eq $number) {
        # Written first: if this is ended in mid-course, whoever clears up knows what to let go of.
        $mounted[[string]$disk.path] = $true
        $noted = [IO.Path]::Combine([Environment]::CurrentDirectory, 'disks.json')
        [IO.File]::WriteAllText($noted, (ConvertTo-Json -InputObject @{ paths = @($mounted.Keys) } -Compress))
        Mount-VHD -Path $disk.path -ReadOnly -NoDriveLetter
        $number = (Get-VHD -Path $disk.path).DiskNumber
    }
    $streams[$name] = Open-Device ('\\.\PhysicalDrive' + [string]$number)
}

function Read-Range($disk, $offset, $length) {
    Open-Disk $disk
    $stream = $streams[[string]$disk.name]
    $bytes = New-Object byte[] $length
    $null = $stream.Seek([long]$offset, [IO.SeekOrigin]::Begin)
    $read = 0
    while ($read -lt $length) {
        $count = $stream.Read($bytes, $read, $length - $read)
        if ($count -le 0) { throw 'Deskyard.DiskShort' }
        $read += $count
    }
    @{ bytes = $bytes }
}

# Zeros, which disks are full of, become next to nothing.
function Compress-Bytes($bytes) {
    $packed = New-Object System.IO.MemoryStream
    $pack = New-Object System.IO.Compression.DeflateStream($packed, [IO.Compression.CompressionLevel]::Fastest, $true)
    $pack.Write($bytes, 0, $bytes.Length)
    $pack.Dispose()
    @{ bytes = $packed.ToArray() }
}

# Headers and body of the answer to what the mover asks.
function Get-Answer($asked) {
    $headers = @('X-Answer: ' + [string]$asked.number)
    try {
        $disk = Get-Disk ([string]$asked.disk)
        if ([string]$asked.what -eq 'changes') {
            $body = ConvertTo-Body (Get-Changes $disk.path $disk.limit $asked.offset $asked.length)
            return @{ headers = $headers; bytes = $body.bytes }
        }
        $found = Read-Range $disk ([long]$asked.offset) ([int]$asked.length)
        $packed = Compress-Bytes $found.bytes
        if ($packed.bytes.Length -lt $found.bytes.Length) {
            return @{ headers = $headers + @('Content-Encoding: deflate'); bytes = $packed.bytes }
        }
        @{ headers = $headers; bytes = $found.bytes }
    } catch {
        $body = ConvertTo-Body (Get-Told $_)
        @{ headers = $headers + @('X-Fault: 1'); bytes = $body.bytes }
    }
}

$none = @{ headers = @(); bytes = (New-Object byte[] 0) }
$answer = $none
$line = $null
$silent = [Diagnostics.Stopwatch]::StartNew()
try {
    while ($true) {
        try {
            if ($null -eq $line) { $line = Open-Line $p.to }
            $told = Send-Request $line $p.to 'POST /work' $answer.headers $answer.bytes
        } catch {
            Close-Line $line
            $line = $null
            # A mover that does not come back is waited for no longer; what was asked is asked again.
            if ([string]$_.FullyQualifiedErrorId -eq 'Deskyard.WrongCertificate') { throw }
            if ($silent.Elapsed.TotalSeconds -ge 60) { throw }
            [Threading.Thread]::Sleep(500)
            $answer = $none
            continue
        }
        $silent.Restart()
        # The point has been closed: the token is worth nothing any more.
        if ($told.status -ne 200) { break }
        $asked = ConvertFrom-Json -InputObject ([Text.Encoding]::UTF8.GetString($told.bytes))
        if ([string]$asked.what -eq 'end') { break }
        if ([string]$asked.what -eq 'wait') { $answer = $none } else { $answer = Get-Answer $asked }
    }
} finally {
    Close-Line $line
    foreach ($stream in @($streams.Values)) { $stream.Dispose() }
    foreach ($path in @($mounted.Keys)) {
        try { Dismount-VHD -Path $path } catch { $null = $_ }
    }
}
